(() => {
  const { data, $, $$, el, format, copy, colour } = convolve;
  const state = { moment: data.moments.length - 1, layer: 0, channel: 0, row: 0, column: 0, show: "field" };
  window.explanation = state; // for the curious, and for tests
  const now = () => data.moments[state.moment];

  // --- sprites: numbers as bytes in a PNG, one picture under the other ------------------------------------------------
  const cache = new Map();
  const decoded = (uri) => {
    if (!cache.has(uri)) cache.set(uri, (async () => {
      const image = new Image();
      image.src = uri;
      await image.decode();
      const canvas = el("canvas", { width: image.width, height: image.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, image.width, image.height).data;
    })());
    return cache.get(uri);
  };
  const share = (sprite, byte) => sprite.signed ? (byte - 128) / 127 : byte / 255;
  const valueAt = (sprite, pixels, number, row, column) => {
    const [, h, w] = sprite.shape;
    return share(sprite, pixels[4 * ((number * h + row) * w + column)]) * sprite.limit;
  };

  // --- colours ---------------------------------------------------------------------------------------------------------
  const rgb = (name) => {
    const probe = el("canvas", { width: 1, height: 1 }).getContext("2d");
    probe.fillStyle = colour(name);
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  let palette;
  const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
  const repaint = () => {
    const [ground, ink, above, below] = ["surface", "ink", "input", "kernel"].map(rgb);
    const ramp = (end) => Array.from({ length: 256 }, (_, i) => {
      const t = Math.sqrt(i / 255);
      return t < 0.72 ? mix(ground, end, t / 0.72) : mix(end, ink, (t - 0.72) / 0.28 * 0.7);
    });
    palette = { above: ramp(above), below: ramp(below), heat: { above, below } };
  };
  const coloured = (part) => (part < 0 ? palette.below : palette.above)[Math.min(255, Math.round(Math.abs(part) * 255))];
  const paint = (canvas, sprite, pixels, number) => {
    const [, h, w] = sprite.shape;
    canvas.width = w;
    canvas.height = h;
    const context = canvas.getContext("2d"), out = context.createImageData(w, h);
    for (let i = 0; i < h * w; i++) {
      const [r, g, b] = coloured(share(sprite, pixels[4 * (number * h * w + i)]));
      out.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(out, 0, 0);
  };

  // --- the image and what is drawn on it ------------------------------------------------------------------------------
  const [H, W] = data.size;
  const screen = $("#image");
  const picture = new Image();
  let grey;
  const rectangles = (row = state.row, column = state.column) => {
    const found = [], at = [row, column];
    for (const [rows, columns] of data.layers[state.layer].sight.terms)
      for (const [top, bottom] of rows.seen[rows.along === null ? 0 : at[rows.along]])
        for (const [left, right] of columns.seen[columns.along === null ? 0 : at[columns.along]])
          found.push([top, bottom, left, right]);
    return found;
  };
  // The measured units of a layer, and the one that stands for the chosen unit: itself, or the nearest of its map, or of any map.
  const units = (layer) => (now().measured[layer] || { units: [] }).units;
  const measured = () => {
    let best = null, least = Infinity;
    units(state.layer).forEach(([channel, row, column, touched, outside, strongest, ...box], index) => {
      const away = (row - state.row) ** 2 + (column - state.column) ** 2 + (channel === state.channel ? 0 : 1e9);
      if (away < least) [best, least] = [{ index, channel, row, column, touched, outside, strongest, box, itself: away === 0 }, away];
    });
    return best && { ...best, frame: hull(rectangles(best.row, best.column)) };
  };
  const hull = (found) => found.length ? [Math.min(...found.map((r) => r[0])), Math.max(...found.map((r) => r[1])), Math.min(...found.map((r) => r[2])), Math.max(...found.map((r) => r[3]))] : null;
  const pixelsSeen = (found) => {
    const seen = new Uint8Array(H * W);
    let count = 0;
    for (const [top, bottom, left, right] of found)
      for (let i = top; i <= bottom; i++) for (let j = left; j <= right; j++) if (!seen[i * W + j]) { seen[i * W + j] = 1; count++; }
    return count;
  };
  // A see-through picture of a sprite's share of its limit; `bend` below 1 lifts what is weak.
  const heat = async (sprite, above, bend) => {
    const pixels = await decoded(sprite.png), [, h, w] = sprite.shape;
    const canvas = el("canvas", { width: w, height: h }), context = canvas.getContext("2d"), out = context.createImageData(w, h);
    for (let i = 0; i < h * w; i++) {
      const part = share(sprite, pixels[4 * i]);
      out.data.set([...(part < 0 ? palette.heat.below : above), Math.round(235 * Math.min(1, Math.abs(part) ** bend))], 4 * i);
    }
    context.putImageData(out, 0, 0);
    return canvas;
  };
  const gradient = async (about) => {
    const { root } = now().measured[state.layer], pixels = await decoded(root.png), [, h, w] = root.shape;
    const canvas = el("canvas", { width: w, height: h }), context = canvas.getContext("2d"), out = context.createImageData(w, h);
    for (let i = 0; i < h * w; i++) out.data.set([...palette.heat.below, Math.round(235 * pixels[4 * (about.index * h * w + i)] / 255)], 4 * i);
    context.putImageData(out, 0, 0);
    return canvas;
  };
  const seesSame = (about, box) => about.box.length && box && about.box[1] - about.box[0] === box[1] - box[0] && about.box[3] - about.box[2] === box[3] - box[2];
  let drawing = 0;
  const drawImage = async () => {
    const turn = ++drawing;
    const room = screen.parentElement.clientWidth, tall = innerHeight * (innerWidth <= 860 ? 0.25 : 0.52);
    const scale = Math.min(room / W, tall / H), ratio = devicePixelRatio || 1;
    const found = rectangles(), box = hull(found), about = measured(), chosen = now().attributions.find((a) => a.method === state.show);
    const layer = state.show === "gradient" && about ? await gradient(about) : chosen ? await heat(chosen.sprite, palette.heat.above, 0.75) : null;
    if (turn !== drawing) return;
    screen.width = Math.round(W * scale * ratio);
    screen.height = Math.round(H * scale * ratio);
    screen.style.width = `${W * scale}px`;
    screen.style.height = `${H * scale}px`;
    const context = screen.getContext("2d"), s = screen.width / W, t = screen.height / H;
    context.imageSmoothingEnabled = scale * ratio < 2;
    if (state.show === "image") {
      context.drawImage(picture, 0, 0, screen.width, screen.height);
      return;
    }
    context.fillStyle = colour("surface");
    context.fillRect(0, 0, screen.width, screen.height);
    context.globalAlpha = state.show === "field" ? 0.3 : 0.42;
    context.drawImage(grey, 0, 0, screen.width, screen.height);
    context.globalAlpha = 1;
    if (state.show === "field") {
      context.save();
      context.beginPath();
      for (const [top, bottom, left, right] of found) context.rect(left * s, top * t, (right - left + 1) * s, (bottom - top + 1) * t);
      context.clip();
      context.drawImage(picture, 0, 0, screen.width, screen.height);
      context.restore();
    }
    if (layer && chosen) {
      context.imageSmoothingEnabled = layer.width < W;
      context.drawImage(layer, 0, 0, W * s, H * t);
    } else if (layer && about.frame) {
      const [top, bottom, left, right] = about.frame, { block } = now().measured[state.layer];
      context.save();
      context.beginPath();
      context.rect(left * s, top * t, (right - left + 1) * s, (bottom - top + 1) * t);
      context.clip();
      context.imageSmoothingEnabled = false;
      context.drawImage(layer, left * s, top * t, layer.width * block * s, layer.height * block * t);
      context.restore();
    }
    const wide = Math.max(2, 2.5 * ratio);
    const frame = ([top, bottom, left, right], name, dashes) => {
      for (const [width, style, dash] of [[wide + 2 * ratio, "surface", []], [wide, name, dashes]]) {
        context.lineWidth = width;
        context.strokeStyle = colour(style);
        context.setLineDash(dash.map((length) => length * ratio));
        context.strokeRect(left * s, top * t, (right - left + 1) * s, (bottom - top + 1) * t);
      }
      context.setLineDash([]);
    };
    if (chosen) return;
    if (box) frame(box, "input", []);
    if (!about || !about.frame) return;
    const [top, , left] = about.frame;
    if (state.show === "gradient" && !about.itself) frame(about.frame, "kernel", [6, 5]);
    // What has a gradient, where it is less than the theory.
    if (about.itself && about.box.length && !seesSame(about, box)) frame([top + about.box[0], top + about.box[1], left + about.box[2], left + about.box[3]], "kernel", [6, 5]);
  };

  // --- words -----------------------------------------------------------------------------------------------------------
  const legend = () => {
    const chosen = now().attributions.find((a) => a.method === state.show), about = measured();
    if (state.show === "image") return "The image as the network sees it: its size and colours, before the normalisation.";
    if (state.show === "field") return "In colour: every pixel that the chosen unit can see, by theory, borders and branches included. The frame is its hull."
      + (about && about.itself ? ` ${measuredFrame(about)}` : "");
    if (state.show === "gradient") {
      if (!about) return "No gradient was measured in this layer: name fewer layers with --layer to have it.";
      const { block } = now().measured[state.layer];
      const how = `(square root of the gradient's size${block > 1 ? `; the strongest of each ${block}×${block} pixels` : ""})`;
      if (about.itself) return `How much the unit's value follows each pixel of this image ${how}. The frame is the theory. ${measuredFrame(about)}`;
      return `This unit was not measured. Orange: its nearest measured neighbour, map ${about.channel}, row ${about.row}, column ${about.column}, dashed, at its own place ${how}.`;
    }
    return `${chosen.method}, for “${chosen.target}”: ${chosen.says}` + (chosen.layer ? `; looks at ${chosen.layer} (${chosen.sprite.shape[1]}×${chosen.sprite.shape[2]}, stretched to the image).` : chosen.sprite.shape[2] < W ? ` (means of ${Math.ceil(W / chosen.sprite.shape[2])}×${Math.ceil(W / chosen.sprite.shape[2])} pixels).` : ".")
      + (chosen.sprite.signed ? " Blue speaks for it, orange against." : "");
  };
  const measuredFrame = (about) => about.touched === 0 ? "No pixel has a gradient: the unit rests." : seesSame(about, about.frame) ? "" : "Dashed: all that has a gradient.";
  const values = async () => {
    const sprite = now().maps[state.layer].sprite, layer = data.layers[state.layer];
    const exact = now().maps[state.layer].strongest.find((u) => u.channel === state.channel && u.row === state.row && u.column === state.column);
    if (exact) return format(exact.value);
    const number = layer.channels.indexOf(state.channel), pixels = await decoded(sprite.png);
    return "≈ " + format(valueAt(sprite, pixels, number, Math.floor(state.row / layer.step), Math.floor(state.column / layer.step)))
      + ` ± ${format(sprite.limit / (sprite.signed ? 254 : 510))}`;
  };
  const span = ([first, last]) => first === last ? `${first}` : `${first} to ${last}`;
  let writing = 0;
  const describe = async () => {
    const turn = ++writing, value = await values();
    if (turn !== writing) return;
    const layer = data.layers[state.layer], found = rectangles(), box = hull(found), about = measured();
    const code = `convolve.receptive_field(${data.code}, "${layer.name}", (${state.row}, ${state.column}), input="${data.input}")`;
    const sees = box ? `${layer.sight.exact ? "" : "at most "}${box[1] - box[0] + 1} × ${box[3] - box[2] + 1} pixels of ${H} × ${W}` : "nothing";
    const button = el("button", { onclick: () => copy(code, button) }, "Copy");
    const flag = `--unit ${layer.name}:${state.channel},${state.row},${state.column}`;
    const follows = !about ? "not measured in this layer"
      : about.itself ? (about.touched ? `${about.touched.toLocaleString("en")} pixels, measured by gradient; ${about.outside} outside the theory` : "no pixel: its gradient is zero everywhere")
      : [`not measured; nearest: map ${about.channel} (${about.row}, ${about.column}), ${about.touched.toLocaleString("en")} pixels. `, el("span", { class: "wordy" }, "This one: ", el("code", {}, flag))];
    $("#unit").replaceChildren(
      el("h2", {}, `${layer.name}, map ${state.channel}, row ${state.row}, column ${state.column}`),
      el("dl", {},
        el("dt", { class: "wordy" }, "unit"), el("dd", { class: "wordy", id: "place" }, `one of ${layer.shape[1]} × ${layer.shape[2]} in this map`),
        el("dt", {}, "value"), el("dd", { id: "value" }, value),
        el("dt", {}, "sees"), el("dd", { id: "sees" }, sees),
        box ? [el("dt", { class: "wordy" }, "where"), el("dd", { class: "wordy", id: "where" }, `rows ${span(box.slice(0, 2))}, columns ${span(box.slice(2))}: ${pixelsSeen(found).toLocaleString("en")} pixels`)] : null,
        el("dt", {}, "follows"), el("dd", { id: "follows" }, follows)),
      el("div", { class: "code" }, el("pre", {}, code), button));
    $("#legend").textContent = legend();
  };

  // --- choosing --------------------------------------------------------------------------------------------------------
  const centre = ({ shape: [, h, w], step }, { row, column }) => {
    const part = (index, size) => `${100 * (Math.floor(index / step) + 0.5) / Math.ceil(size / step)}%`;
    return { left: part(column, w), top: part(row, h) };
  };
  const marks = () => {
    $$(".here").forEach((node) => node.remove());
    $$(".map.chosen").forEach((node) => node.classList.remove("chosen"));
    const figure = $(`.map[data-layer="${state.layer}"][data-channel="${state.channel}"]`);
    if (!figure) return;
    figure.classList.add("chosen");
    $(".frame", figure).append(el("i", { class: "here", style: centre(data.layers[state.layer], state) }));
  };
  const show = (what) => {
    state.show = what;
    $$("#choices button").forEach((button) => button.setAttribute("aria-pressed", button.value === what));
    drawImage();
    $("#legend").textContent = legend();
  };
  const choose = (layer, channel, row, column, what) => {
    Object.assign(state, { layer, channel, row, column });
    marks();
    describe();
    show(what || (state.show === "gradient" ? "gradient" : "field"));
  };

  // --- the page's parts ------------------------------------------------------------------------------------------------
  const choices = () => {
    const methods = now().attributions.map((a) => [a.method, a.method]);
    $("#choices").replaceChildren(...[["image", "Image"], ["field", "Receptive field"], ["gradient", "Gradient"], ...methods].map(([value, text]) =>
      el("button", { value, "aria-pressed": value === state.show, onclick: () => show(value) }, text)));
  };
  const bars = () => {
    const rows = now().probabilities;
    $("#answer").hidden = !rows.length;
    $("#bars").replaceChildren(...rows.flatMap(([name, part]) => [
      el("span", { class: "name", title: name }, name),
      el("span", { class: "track" }, el("span", { class: "fill", style: { width: `${100 * part}%`, display: "block" } })),
      el("span", { class: "number" }, part >= 0.0005 ? `${(100 * part).toFixed(1)} %` : "< 0.1 %")]));
  };
  const filters = async () => {
    const panels = [];
    for (const group of now().filters) {
      const [count, kernels, r, s] = group.shape, pixels = await decoded(group.sprite.png), plain = kernels === 3;
      const across = plain || kernels === 1 ? Math.min(count, count <= 8 ? count : count <= 32 ? 8 : 12) : kernels, cells = plain ? count : count * kernels;
      const zoom = Math.max(3, Math.floor(Math.min(48, 420 / across) / Math.max(r, s))), gap = 3;
      const canvas = el("canvas", { width: across * (s * zoom + gap) - gap, height: Math.ceil(cells / across) * (r * zoom + gap) - gap, role: "img", "aria-label": `filters of ${group.layer}` });
      const context = canvas.getContext("2d");
      for (let cell = 0; cell < cells; cell++)
        for (let i = 0; i < r; i++) for (let j = 0; j < s; j++) {
          const at = (kernel) => share(group.sprite, pixels[4 * ((kernel * r + i) * s + j)]);
          const tint = plain ? [0, 1, 2].map((c) => 127.5 * (1 + at(3 * cell + c))) : coloured(at(cell));
          context.fillStyle = `rgb(${tint.map(Math.round).join(" ")})`;
          context.fillRect((cell % across) * (s * zoom + gap) + j * zoom, Math.floor(cell / across) * (r * zoom + gap) + i * zoom, zoom, zoom);
        }
      const [all, deep] = group.total;
      panels.push(el("section", { class: "panel filters" }, el("h2", {}, `Filters of ${group.layer}`),
        el("p", { class: "muted" }, plain ? `${count} of ${all} filters, ${r}×${s}; each kernel colours one channel, grey is 0, the ends are ±${format(group.sprite.limit)}`
          : `${count} of ${all} filters${kernels > 1 ? ` (rows), ${kernels} of their ${deep} kernels` : ""}, ${r}×${s}; blue above zero, orange below, the strongest is ±${format(group.sprite.limit)}`),
        el("div", { class: "scroll" }, canvas)));
    }
    $("#filters").replaceChildren(...panels);
  };
  const visible = new Set(), DOTS = 12;
  const paintLayer = async (number) => {
    const sprite = now().maps[number].sprite, moment = state.moment, pixels = await decoded(sprite.png);
    if (moment !== state.moment) return;
    $$(`#layer-${number} .map canvas`).forEach((canvas, index) => paint(canvas, sprite, pixels, index));
    $$(`#layer-${number} .dot`).forEach((node) => node.remove());
    const layer = data.layers[number];
    // Dots mark measured units, where they are few; where they are many, the line of facts says how many.
    const found = units(number), all = layer.channels.length * layer.shape[1] * layer.shape[2];
    if (found.length <= DOTS * layer.channels.length) for (const [channel, row, column] of found) {
      const frame = $(`.map[data-layer="${number}"][data-channel="${channel}"] .frame`);
      if (frame) frame.append(el("i", { class: "dot", style: centre(layer, { row, column }) }));
    }
    $(`#layer-${number} .measured`).textContent = found.length === all ? "every unit's gradient measured"
      : found.length ? `gradient measured for ${found.length.toLocaleString("en")} of ${all.toLocaleString("en")} units${found.length <= DOTS * layer.channels.length ? " (dots)" : ""}` : "no gradient measured";
    const chips = $(`#layer-${number} .chips`);
    const chip = (channel, row, column, words) => el("button", { onclick: () => choose(number, channel, row, column), title: "show what it sees" }, `map ${channel} (${row}, ${column})${words}`);
    chips.replaceChildren(...(layer.asked.length ? ["asked for", ...layer.asked.map((unit) => chip(...unit, ""))] : []), "strongest units", ...now().maps[number].strongest.map((unit) =>
      chip(unit.channel, unit.row, unit.column, ` ${format(unit.value)}`)));
  };
  const place = (event, layer) => {
    const box = event.currentTarget.getBoundingClientRect(), [, h, w] = layer.shape;
    const cut = (value, size) => {
      const cells = Math.ceil(size / layer.step);
      return layer.step * Math.max(0, Math.min(cells - 1, Math.floor(value * cells)));
    };
    return [cut((event.clientY - box.top) / box.height, h), cut((event.clientX - box.left) / box.width, w)];
  };
  const keys = (event, number) => {
    const layer = data.layers[number], [, h, w] = layer.shape, move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const turn = { PageUp: -1, PageDown: 1 }[event.key];
    if (!move && !turn && event.key !== "Enter") return;
    event.preventDefault();
    if (state.layer !== number || event.key === "Enter") {
      const unit = now().maps[number].strongest[0];
      return choose(number, unit.channel, unit.row, unit.column);
    }
    if (turn) {
      const index = (layer.channels.indexOf(state.channel) + turn + layer.channels.length) % layer.channels.length;
      return choose(number, layer.channels[index], state.row, state.column);
    }
    const last = (size) => Math.floor((size - 1) / layer.step) * layer.step, cut = (value, size) => Math.max(0, Math.min(last(size), value));
    choose(number, state.channel, cut(state.row + move[0] * layer.step, h), cut(state.column + move[1] * layer.step, w));
  };
  const build = () => {
    $("#jump").replaceChildren(...data.layers.map((layer, number) => el("a", { href: `#layer-${number}` }, layer.name)));
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const number = Number(entry.target.dataset.layer);
        if (entry.isIntersecting) { visible.add(number); paintLayer(number); } else visible.delete(number);
      }
    }, { rootMargin: "900px" });
    data.layers.forEach((layer, number) => {
      const [c, h, w] = layer.shape, sight = layer.sight;
      const facts = [`${c} maps of ${h} × ${w}`, `${layer.channels.length === c ? "all" : `the ${layer.channels.length} strongest`} shown${layer.step > 1 ? `, every ${layer.step} rows and columns` : ""}`,
        sight.size ? `a unit sees ${sight.exact ? "" : "at most "}${sight.size[0]} × ${sight.size[1]} pixels${sight.stride ? `, stride ${[...new Set(sight.stride)].join(" × ")}` : ""}` : null].filter(Boolean).join(" · ");
      const maps = layer.channels.map((channel) => el("figure", { class: "map", "data-layer": number, "data-channel": channel },
        el("div", { class: "frame", onclick: (event) => choose(number, channel, ...place(event, layer)) }, el("canvas", { width: w, height: h })),
        el("figcaption", {}, `map ${channel}`)));
      const section = el("section", { class: "panel layer", id: `layer-${number}`, "data-layer": number },
        el("header", {}, el("h2", {}, layer.name), el("span", { class: "words" }, layer.words)), el("p", { class: "facts" }, `${facts} · `, el("span", { class: "measured" })), el("div", { class: "chips" }),
        el("div", { class: h > 80 ? "maps large" : "maps", tabindex: 0, role: "group", "aria-label": `maps of ${layer.name}; arrows move the unit`, onkeydown: (event) => keys(event, number) }, maps));
      $("#layers").append(section);
      watcher.observe(section);
    });
    if (data.moments.length > 1) {
      const label = el("output", { id: "moment" });
      const slider = el("input", { type: "range", min: 0, max: data.moments.length - 1, value: state.moment, id: "time", "aria-label": "moment of the training",
        oninput: () => moment(Number(slider.value)) });
      $("#moments").append(label, el("span", { class: "muted" }, "random"), slider, el("span", { class: "muted" }, "trained"));
      $("#moments").hidden = false;
    }
  };
  const moment = (number) => {
    state.moment = number;
    if ($("#moment")) { $("#moment").textContent = now().label; $("#time").setAttribute("aria-valuetext", now().label); }
    bars();
    filters();
    visible.forEach(paintLayer);
    choices();
    show(state.show);
    describe();
  };

  picture.src = data.picture;
  picture.decode().then(() => {
    grey = el("canvas", { width: W, height: H });
    const context = grey.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, W, H);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const light = 0.299 * pixels.data[i] + 0.587 * pixels.data[i + 1] + 0.114 * pixels.data[i + 2];
      pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = light;
    }
    context.putImageData(pixels, 0, 0);
    repaint();
    build();
    // Begin with the deepest layer whose units do not see everything yet: there the picture says most.
    const telling = data.layers.map((layer, number) => [layer, number]).filter(([layer]) => layer.sight.size && layer.sight.size[0] < 0.6 * H && layer.sight.size[1] < 0.6 * W);
    const number = telling.length ? telling[telling.length - 1][1] : 0, unit = now().maps[number].strongest[0];
    Object.assign(state, { layer: number, channel: unit.channel, row: unit.row, column: unit.column });
    moment(state.moment);
    marks();
    document.documentElement.dataset.ready = "yes";
    (async () => { for (let n = 0; n < data.layers.length; n++) await paintLayer(n); })(); // also for print
  });
  document.addEventListener("themechange", () => { if (palette) { repaint(); moment(state.moment); } });
  addEventListener("resize", () => { if (palette) drawImage(); });
})();
