(() => {
  const { data, $, $$, el, svg, format, copy } = convolve;
  const { classes, pictures } = data, FIRST = 60; // shown before one asks for more
  const whole = (number) => number.toLocaleString("en");
  const percent = (share) => share === null ? "–" : share >= 0.9995 && share < 1 ? "> 99.9 %" : share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
  const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
  const of = (number) => { const [part, name, label, own, answers] = pictures[number]; return { number, part, name, label, own, answers, guess: answers[0][0], share: answers[0][1] }; };

  // --- pictures on sheets: each canvas draws its own part of one -----------------------------------------------------
  const decoded = new Map();
  const load = (uri) => {
    if (!decoded.has(uri)) decoded.set(uri, (async () => { const image = new Image(); image.src = uri; await image.decode(); return image; })());
    return decoded.get(uri);
  };
  const painted = (sheet, number, attributes = {}) => {
    const { h, w, cell, across, down } = sheet, per = across * down, place = number % per;
    const canvas = el("canvas", { width: w, height: h, class: Math.max(h, w) <= 64 ? "small" : null, ...attributes });
    load(sheet.sheets[Math.floor(number / per)]).then((image) =>
      canvas.getContext("2d").drawImage(image, (place % across) * cell[1], Math.floor(place / across) * cell[0], w, h, 0, 0, w, h));
    return canvas;
  };
  const side = Math.max(data.thumbnails.h, data.thumbnails.w);
  document.documentElement.style.setProperty("--shot", `${Math.max(side <= 40 ? 94 : side <= 64 ? 104 : 124, classes.some((name) => name.length > 6) ? 132 : 0)}px`);
  document.documentElement.style.setProperty("--seen", `${side <= 64 ? 64 : 128}px`);
  const word = (part) => part === "train" ? "training" : part;

  // --- galleries, and one picture large --------------------------------------------------------------------------------
  const told = (picture) => picture.guess === picture.label ? `${classes[picture.label]}, answered right with ${percent(picture.share)}`
    : `${classes[picture.label]}, taken for ${classes[picture.guess]} with ${percent(picture.share)}`;
  const shot = (list, place, caption) => {
    const picture = of(list[place]);
    return el("button", { class: "shot", "data-picture": picture.number, "aria-label": `${picture.name}: ${told(picture)}`, title: `${picture.name}\n${told(picture)}`, onclick: () => view(list, place) },
      el("span", { class: "frame" }, painted(data.thumbnails, picture.number)), el("span", { class: "text" }, caption(picture), el("span", { class: "name" }, el("bdi", {}, picture.name))));
  };
  const gallery = (root, list, caption) => {
    root.replaceChildren(...list.slice(0, FIRST).map((_, place) => shot(list, place, caption)));
    root.scrollTop = 0;
    const more = (from) => {
      if (from >= list.length) return;
      const button = el("button", { class: "more", onclick: () => {
        button.remove();
        const added = list.slice(from, from + 4 * FIRST).map((_, place) => shot(list, from + place, caption));
        root.append(...added);
        added[0].focus();
        more(from + 4 * FIRST);
      } }, `Show ${whole(Math.min(list.length - from, 4 * FIRST))} more`);
      root.append(button);
    };
    more(FIRST);
  };
  const bars = (rows) => el("div", { class: "bars" }, rows.map(([number, share]) => [el("span", { title: classes[number] }, classes[number]), el("span", { class: "bar" }, el("i", { style: { width: `${100 * share}%` } })), el("span", { class: "number" }, percent(share))]));
  const viewer = $("#viewer");
  const view = (list, place) => {
    const picture = of(list[place]), step = (by) => view(list, (place + by + list.length) % list.length);
    const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
    viewer.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    };
    viewer.replaceChildren(el("div", { class: "inside" }, painted(data.thumbnails, picture.number, { role: "img", "aria-label": picture.name }),
      el("div", {}, el("h3", { id: "viewer-title" }, picture.name),
        el("dl", {}, fact("true class", classes[picture.label]), fact("answer", classes[picture.guess]), fact("probability", percent(picture.share)), fact("of the true class", percent(picture.own)), fact("part", word(picture.part))),
        bars(picture.answers))),
    el("div", { class: "controls" }, el("button", { onclick: () => step(-1) }, "← Previous"), el("button", { onclick: () => step(1) }, "Next →"),
      el("button", { class: "primary", onclick: () => viewer.close() }, "Close"), el("span", { class: "muted" }, `${place + 1} of ${list.length}`)));
    if (!viewer.open) viewer.showModal();
  };
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  const short = classes.every((name) => name.length <= 4);
  const mistaken = (picture) => [...(short ? [`${classes[picture.label]} → ${classes[picture.guess]}`] : [classes[picture.label], `→ ${classes[picture.guess]}`]).map((line) => el("span", { class: "wrong" }, line)), el("span", {}, percent(picture.share))];

  // --- the confusion matrix ------------------------------------------------------------------------------------------
  const counts = new Map(data.confusion.map(([i, j, count]) => [i * classes.length + j, count]));
  const count = (i, j) => counts.get(i * classes.length + j) || 0;
  const shown = data.matrix, state = { truth: null, answer: null }; // null: all others
  window.report = state; // for the curious, and for tests
  const everything = pictures.map((_, number) => number).filter((number) => pictures[number][0] === data.part);
  const total = (truth, answer) => truth !== null && answer !== null ? count(truth, answer)
    : data.confusion.reduce((sum, [i, j, n]) => sum + (i !== j && (truth === null ? j === answer : i === truth) ? n : 0), 0);
  const select = (truth, answer) => {
    Object.assign(state, { truth, answer });
    const right = truth === answer, all = total(truth, answer);
    const list = everything.map(of).filter((one) => (truth === null ? one.label !== answer : one.label === truth) && (answer === null ? one.guess !== truth : one.guess === answer));
    list.sort((a, b) => right ? a.share - b.share : b.share - a.share);
    $("#cell-title").textContent = right ? `${classes[truth]}, answered right: ${plural(all, "image")}`
      : answer === null ? `${classes[truth]}, taken for something else: ${plural(all, "image")}`
      : truth === null ? `Others taken for ${classes[answer]}: ${plural(all, "image")}`
      : `${classes[truth]}, taken for ${classes[answer]}: ${plural(all, "image")}`;
    const whose = truth === null ? "" : `${percent(all / (data.counts[truth][0] || 1))} of the ${plural(data.counts[truth][0], "image")} of ${classes[truth]}. `;
    const sorted = right ? "the least certain first" : "the most confident first";
    $("#cell-says").textContent = all === 0 ? whose : whose + (list.length === all ? (all > 1 ? `All are here, ${sorted}.` : "")
      : right ? `${whole(list.length)} of them are here, half of these the least certain, half drawn; ${sorted}.` : `The ${whole(list.length)} most confident of them are here.`);
    gallery($("#cell-images"), list.map((one) => one.number), (picture) => truth !== null && answer !== null ? el("span", { class: right ? "" : "wrong" }, percent(picture.share)) : mistaken(picture));
    for (const node of $$("#matrix [aria-selected]")) node.setAttribute("aria-selected", node.dataset.truth === String(truth) && node.dataset.answer === String(answer));
  };
  const bring = () => { const box = $("#cell").getBoundingClientRect(); if (box.top > innerHeight * 0.7 || box.top < 0) $("#cell").scrollIntoView({ block: "start" }); };
  const matrix = $("#matrix");
  const drawMatrix = () => {
    const most = Math.max(1, ...data.pairs.map((pair) => pair[2])), names = shown.map((k) => classes[k]);
    matrix.style.setProperty("--side", shown.length > 16 ? "27px" : shown.length > 10 ? "34px" : shown.length < 6 ? "64px" : "min(46px, 7.4vw)");
    matrix.classList.toggle("upright", Math.max(...names.map((name) => name.length)) > 3);
    const cell = (i, j) => {
      const n = count(i, j), share = i === j ? n / (data.counts[i][0] || 1) : n ? Math.max(0.12, Math.sqrt(n / most)) : 0;
      return el("td", { role: "gridcell", tabindex: -1, class: `${n ? "some" : ""}${i === j ? " right" : ""}`, "data-truth": i, "data-answer": j, "aria-selected": false, style: { "--share": share },
        "aria-label": i === j ? `${classes[i]}, right: ${n}` : `${classes[i]} taken for ${classes[j]}: ${n}` }, n ? whole(n) : "·");
    };
    const head = (truth, answer) => el("th", { scope: truth === null ? "col" : "row", "data-truth": String(truth), "data-answer": String(answer), "aria-selected": false },
      el("button", { tabindex: -1, title: classes[truth ?? answer] }, classes[truth ?? answer]));
    matrix.replaceChildren(el("thead", {}, el("tr", {}, el("td", { class: "axis-corner", style: "background:none;cursor:default" }), el("th", { class: "axis", colspan: shown.length }, "answer →")), el("tr", {}, el("th", { class: "axis" }, "true ↓"), shown.map((j) => head(null, j)))),
      el("tbody", {}, shown.map((i) => el("tr", {}, head(i, null), shown.map((j) => cell(i, j))))));
    matrix.querySelector(".axis-corner").removeAttribute("role");
  };
  const number = (text) => text === "null" ? null : Number(text);
  const at = (truth, answer) => $(`#matrix [data-truth="${truth}"][data-answer="${answer}"]`);
  const focusable = (node) => node.tagName === "TH" ? $("button", node) : node;
  const rove = (node) => {
    for (const other of $$('#matrix [tabindex="0"]')) other.tabIndex = -1;
    focusable(node).tabIndex = 0;
  };
  matrix.addEventListener("click", (event) => {
    const node = event.target.closest("[data-truth]");
    if (!node) return;
    rove(node);
    select(number(node.dataset.truth), number(node.dataset.answer));
    bring();
  });
  matrix.addEventListener("keydown", (event) => {
    const node = event.target.closest("[data-truth]"), move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e4], End: [0, 1e4] }[event.key];
    if (!node) return;
    if (event.key === "Enter" && node.tagName === "TD") { event.preventDefault(); const first = $("#cell-images .shot"); if (first) first.focus(); return; }
    if (!move) return;
    event.preventDefault();
    // Row and column 0 are the names; the corner between them is nothing.
    const place = (text) => text === "null" ? 0 : shown.indexOf(Number(text)) + 1, cut = (value) => Math.max(0, Math.min(shown.length, value));
    const row = cut(place(node.dataset.truth) + move[0]), column = cut(place(node.dataset.answer) + move[1]);
    if (row + column === 0) return;
    const next = at(row ? shown[row - 1] : "null", column ? shown[column - 1] : "null");
    rove(next);
    focusable(next).focus();
    select(number(next.dataset.truth), number(next.dataset.answer));
  });
  drawMatrix();
  const pairs = data.pairs.map(([i, j, n]) => el("button", { onclick: () => { select(i, j); bring(); } }, `${classes[i]} → ${classes[j]}`, el("span", { class: "number" }, whole(n))));
  $("#pairs").replaceChildren(...(pairs.length ? ["most frequent mistakes", ...pairs] : []));
  if ($("#covered")) {
    const inside = new Set(shown), sum = (rows) => rows.reduce((all, row) => all + row[2], 0), wrong = data.confusion.filter(([i, j]) => i !== j);
    $("#covered").textContent = `${whole(sum(wrong.filter(([i, j]) => inside.has(i) && inside.has(j))))} of ${whole(sum(wrong))} mistakes are in this part. The others open from the table of classes.`;
  }
  const [first] = data.pairs, start = first ? [first[0], first[1]] : [shown[0], shown[0]];
  select(...start);
  rove(at(...start) || at(shown[0], shown[0]));

  // --- worst mistakes, likely wrong labels --------------------------------------------------------------------------
  if ($("#worst-images")) gallery($("#worst-images"), data.worst, mistaken);
  if ($("#doubts-images")) gallery($("#doubts-images"), data.doubts, (picture) => [
    el("span", { class: "wrong" }, `${classes[picture.guess]}?`, el("span", { class: "part" }, ` ${percent(picture.share)}`)), el("span", {}, `labelled ${classes[picture.label]}`), el("span", { class: "part" }, word(picture.part))]);
  // A spreadsheet would run a cell that begins with one of = + - @; a quote before it keeps it text.
  const field = (value) => `"${String(value).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const save = (button, name, list) => {
    if (!$(button)) return;
    $(button).addEventListener("click", () => {
      const rows = [["part", "image", "class", "answer", "probability"], ...list.map(of).map((one) => [one.part, one.name, classes[one.label], classes[one.guess], one.share])];
      const link = el("a", { href: URL.createObjectURL(new Blob(["\ufeff" + rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" })), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  };
  save("#save-worst", "worst-mistakes.csv", data.worst);
  save("#save-doubts", "likely-wrong-labels.csv", data.doubts);

  // --- class by class ------------------------------------------------------------------------------------------------
  const table = $("#class-table"), COLUMNS = ["class", "images", "recall", "precision", "F1"];
  const values = (k) => { const [images, , , recall, precision, f1] = data.counts[k]; return [k, images, recall, precision, f1]; };
  const rate = (share, drawn) => el("td", { class: "right" }, drawn && share !== null ? el("span", { class: "bar" }, el("i", { style: { width: `${100 * share}%` } })) : null, percent(share));
  const sorted = (column, up) => {
    const order = classes.map((_, k) => k).sort((a, b) => {
      const [x, y] = [values(a)[column], values(b)[column]];
      return x === y ? a - b : x === null ? 1 : y === null ? -1 : up ? x - y : y - x;
    });
    table.replaceChildren(el("thead", {}, el("tr", {}, COLUMNS.map((name, k) => el("th", { class: k ? "right" : "", scope: "col", "aria-sort": k === column ? up ? "ascending" : "descending" : "none" },
      el("button", { onclick: () => { sorted(k, k === column ? !up : true); $$("button", table)[k].focus(); } }, name))))),
    el("tbody", {}, order.map((k) => el("tr", {}, el("td", {}, el("button", { title: classes[k], onclick: () => { select(k, null); $("#cell").scrollIntoView({ block: "start" }); } }, classes[k])),
      el("td", { class: "right" }, whole(data.counts[k][0])), rate(data.counts[k][3], true), rate(data.counts[k][4], true), rate(data.counts[k][5])))));
  };
  sorted(classes.length > 20 ? 2 : 0, true);

  // --- charts -----------------------------------------------------------------------------------------------------------
  const ticks = (low, high, count) => {
    const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 2.5, 5, 10].find((k) => k * power >= rough) * power, found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
    return found;
  };
  const reliability = () => {
    const S = 400, L = 48, T = 30, B = 84, W = L + S + 14, x = (v) => L + S * v, y = (v) => T + S * (1 - v), base = T + S + 78, most = Math.max(1, ...data.bins.map((bin) => bin[2]));
    const says = data.bins.filter((bin) => bin[2]).map(([, , n, p, a]) => `${plural(n, "answer")} given with ${percent(p)} were right in ${percent(a)}`).join("; ");
    const parts = [0, 0.2, 0.4, 0.6, 0.8, 1].flatMap((v) => [svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(v), y2: y(v) }), svg("text", { x: L - 8, y: y(v) + 4, "text-anchor": "end" }, `${100 * v} %`),
      svg("text", { x: x(v), y: T + S + 18, "text-anchor": "middle" }, `${100 * v} %`)]);
    for (const [low, high, n, p, a, from, to] of data.bins) {
      if (!n) continue;
      const middle = x((low + high) / 2), width = x(high) - x(low) - 3;
      parts.push(svg("g", {}, svg("title", {}, `${plural(n, "answer")}, given with ${percent(p)} on average: ${percent(a)} right (95 % interval ${percent(from)} to ${percent(to)})`),
        svg("rect", { x: x(low) + 1.5, width, y: y(a), height: y(0) - y(a), fill: "var(--input)", opacity: 0.78, rx: 2 }),
        svg("line", { x1: middle, x2: middle, y1: y(to), y2: y(from), stroke: "var(--ink)", "stroke-width": 1.4 }),
        svg("rect", { x: x(low) + 1.5, width, y: base - 44 * Math.sqrt(n / most), height: 44 * Math.sqrt(n / most), fill: "var(--muted)", opacity: 0.55, rx: 1 })));
    }
    parts.push(svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), stroke: "var(--kernel)", "stroke-width": 1.8, "stroke-dasharray": "6 4" }), svg("line", { class: "axis", x1: x(0), x2: x(1), y1: y(0), y2: y(0) }),
      svg("text", { x: 0, y: 13, class: "title" }, "share of right answers, by the probability given"), svg("text", { x: x(0.01), y: base - 30 }, `images, up to ${whole(most)} (root scale)`));
    $("#reliability").replaceChildren(svg("svg", { class: "chart", viewBox: `0 0 ${W} ${T + S + B}`, role: "img", "aria-label": says || "no images" }, parts));
    $("#bins").replaceChildren(el("tr", {}, ["probability", "images", "mean probability", "right"].map((name) => el("th", { class: "right" }, name))),
      ...data.bins.map(([low, high, n, p, a]) => el("tr", {}, [`${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)} %`, whole(n), percent(p), percent(a)].map((text) => el("td", { class: "right" }, text)))));
  };
  reliability();

  const chart = (title, series, written, zero) => {
    const W = 440, H = 250, L = 52, R = 84, T = 26, B = 30, epochs = data.history.map((row) => row.epoch), n = epochs.length;
    const finite = series.flatMap((one) => one.values.map(Number)).filter(Number.isFinite);
    let low = zero ? 0 : Math.min(...finite), high = Math.max(...finite);
    if (!finite.length) [low, high] = [0, 1];
    if (low === high) [low, high] = low ? [Math.min(0, 2 * low), Math.max(0, 2 * low)] : [0, 1];
    const x = (k) => L + (n > 1 ? k / (n - 1) : 0.5) * (W - L - R), y = (v) => T + (1 - (v - low) / (high - low)) * (H - T - B);
    const parts = [svg("text", { class: "title", x: 0, y: 13 }, title), ...ticks(low, high, 4).flatMap((v) => [svg("line", { class: "grid", x1: L, x2: W - R, y1: y(v), y2: y(v) }), svg("text", { x: L - 8, y: y(v) + 4, "text-anchor": "end" }, written(v))])];
    const whichEpochs = n === 1 ? [0] : [...new Set(ticks(epochs[0], epochs[n - 1], 5).filter(Number.isInteger).concat(epochs[0], epochs[n - 1]))].map((e) => epochs.indexOf(e)).filter((k) => k >= 0).sort((a, b) => a - b).filter((k, place, all) => place === 0 || place === all.length - 1 || all[all.length - 1] - k > n / 12 && k - all[0] > n / 12);
    for (const k of whichEpochs) parts.push(svg("text", { x: x(k), y: H - 8, "text-anchor": "middle" }, whole(epochs[k])));
    const best = data.history.map((row) => row.best).lastIndexOf(true);
    if (best >= 0) parts.push(svg("line", { class: "guide", x1: x(best), x2: x(best), y1: T, y2: H - B }, svg("title", {}, "the best epoch")));
    const labels = [];
    for (const { name, values: some, colour, dash } of series) {
      const points = some.map((v, k) => [x(k), y(Number(v)), Number.isFinite(Number(v))]).filter((point) => point[2]);
      if (!points.length) continue;
      if (points.length > 1) parts.push(svg("path", { class: "line", stroke: `var(--${colour})`, "stroke-dasharray": dash, d: "M" + points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L") }));
      if (points.length < 30) points.forEach(([a, b]) => parts.push(svg("circle", { cx: a, cy: b, r: 2.6, fill: `var(--${colour})` })));
      labels.push({ name, colour, x: points[points.length - 1][0] + 9, y: points[points.length - 1][1] + 4 });
    }
    labels.sort((a, b) => a.y - b.y).forEach((label, k) => {
      if (k && label.y - labels[k - 1].y < 15) label.y = labels[k - 1].y + 15;
      parts.push(svg("text", { class: "label", x: label.x, y: label.y, style: `fill:var(--${label.colour})` }, label.name));
    });
    const guide = svg("line", { class: "axis", y1: T, y2: H - B, visibility: "hidden" }), says = el("output", {});
    const point = (k) => {
      guide.setAttribute("visibility", "visible");
      ["x1", "x2"].forEach((name) => guide.setAttribute(name, x(k)));
      says.textContent = `epoch ${epochs[k]}: ${series.map((one) => `${one.name ? one.name + " " : ""}${written(Number(one.values[k]), true)}`).join(", ")}`;
    };
    let here = n - 1;
    const picture = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img", "aria-label": `${title} by epoch; arrows read it`,
      onpointermove: (event) => { const box = picture.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * W - L) / (W - L - R); here = Math.max(0, Math.min(n - 1, Math.round(share * (n - 1)))); point(here); },
      onkeydown: (event) => { const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key]; if (by) { event.preventDefault(); here = Math.max(0, Math.min(n - 1, here + by)); point(here); } } }, parts, guide);
    return el("div", {}, picture, says);
  };
  if (data.history.length) {
    const column = (name) => data.history.map((row) => row[name]), share = (v, exact) => `${(100 * v).toFixed(exact ? 2 : 1).replace(/\.0$/, "")} %`, plain = (v) => format(Number(v.toPrecision(4)));
    const both = (name) => [{ name: "training", values: column(name), colour: "input", dash: "5 4" }, { name: "validation", values: column(`val_${name}`), colour: "kernel" }];
    $("#charts").replaceChildren(chart("loss (cross-entropy, nats)", both("loss"), plain), chart("accuracy", both("acc"), share), chart("learning rate at the end of the epoch", [{ name: "", values: column("lr"), colour: "output" }], plain, true));
    $("#epochs").replaceChildren(el("tr", {}, ["epoch", "loss", "accuracy", "validation loss", "validation accuracy", "lr", "seconds", ""].map((name) => el("th", { class: "right" }, name))),
      ...data.history.map((row) => el("tr", {}, [row.epoch, format(row.loss), share(row.acc, true), format(row.val_loss), share(row.val_acc, true), format(row.lr), format(row.seconds), row.best ? "best so far" : ""].map((text) => el("td", { class: "right" }, text)))));
  }

  // --- what it saw, what it looked at, its filters -------------------------------------------------------------------
  if (data.seen) {
    const { sheet, names, labels, versions } = data.seen;
    $("#seen-table").replaceChildren(el("thead", {}, el("tr", {}, el("td", {}), names.map((name, k) => el("th", { scope: "col", title: `${name}: ${classes[labels[k]]}` }, classes[labels[k]])))),
      el("tbody", {}, versions.map((version, row) => el("tr", {}, el("th", { scope: "row" }, version),
        names.map((name, k) => el("td", {}, painted(sheet, k * versions.length + row, { role: "img", "aria-label": `${name}, ${version}` })))))));
  }
  if (data.looks) {
    const { sheet, maps } = data.looks, dim = (name) => el("span", { title: name }, name);
    $("#looks-images").replaceChildren(...data.looks.pictures.map((number, place) => {
      const picture = of(number), own = maps.filter((map) => map.picture === place), right = picture.guess === picture.label;
      return el("figure", { class: "look", style: { "--count": own.length + 1 } },
        el("div", { class: "row" }, el("div", { class: "stack" }, painted(sheet, place, { role: "img", "aria-label": picture.name })),
          own.map((map) => el("div", { class: "stack dim" }, painted(sheet, place), el("img", { src: map.heat, alt: `what speaks for ${map.target}` })))),
        el("div", { class: "under" }, dim(""), own.map((map) => dim(`for ${map.target}`))),
        el("figcaption", {}, right ? [el("b", {}, classes[picture.label]), `, right with ${percent(picture.share)}`] : [el("b", {}, classes[picture.label]), ", taken for ", el("b", {}, classes[picture.guess]), ` with ${percent(picture.share)}`]));
    }));
  }
  if (data.filters) {
    const { layer, picture, tiles, h, w, shown: [filters, kernels], total, colour: coloured, limit } = data.filters, across = coloured || kernels === 1 ? Math.min(tiles, tiles <= 8 ? tiles : tiles <= 36 ? 12 : 16) : kernels;
    $("#filters-says").textContent = `${layer}: ${filters} of ${total[0]} filters${coloured || kernels === 1 ? "" : ` (rows), ${kernels} of their ${total[1]} kernels`}, ${h} × ${w}. ` +
      (coloured ? `Each is one picture, a kernel for each colour; grey is 0, the ends are ±${format(limit)}.` : `Blue above zero, orange below, the strongest ±${format(limit)}.`);
    const root = $("#filters-images");
    root.style.gridTemplateColumns = `repeat(${across}, minmax(0, ${Math.max(5 * w, 46)}px))`;
    load(picture).then((image) => root.replaceChildren(...Array.from({ length: tiles }, (_, k) => {
      const canvas = el("canvas", { width: w, height: h, role: "img", "aria-label": `filter ${Math.floor(k / (coloured ? 1 : kernels))}` });
      canvas.getContext("2d").drawImage(image, 0, k * h, w, h, 0, 0, w, h);
      return canvas;
    })));
  }
  for (const button of $$("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
  document.documentElement.dataset.ready = "yes";
})();
