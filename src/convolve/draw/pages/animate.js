"use strict";
(() => {
  const { data, $, $$, el, svg, format, copy, colour } = convolve;
  const state = { scene: 0, stage: 0, filter: 0, step: 0, hover: null, cell: null, turned: false, timer: null };
  const stage = () => data.scenes[state.scene].stages[state.stage];
  const shown = () => state.hover === null ? state.step : state.hover;
  const steps = () => stage().reads.length;
  const F = (value) => format(value);
  const signed = (value) => Number(value) < 0 ? `(${F(value)})` : F(value);
  const transposed = () => stage().kind === "transposed", pooled = () => ["max", "average", "sum"].includes(stage().kind);

  // ---- which channels a filter reads, and where a position lies ----
  const depth = () => { const s = stage(); return pooled() ? 1 : transposed() ? s.input_size[0] / s.groups : s.weight_shape[1]; };
  const group = (filter) => { const s = stage(); return pooled() ? filter : Math.floor(filter / (s.output_size[0] / s.groups)); };
  const channels = (filter) => stage().order.slice(group(filter) * depth(), (group(filter) + 1) * depth());
  const channelName = (c) => state.stage === 0 && data.channel_names[c] || `channel ${c}`;
  const kernelOf = (filter, i) => { const s = stage(); return transposed() ? s.weight[group(filter) * depth() + i][filter % (s.output_size[0] / s.groups)] : s.weight[filter][i]; };
  const place = (flat, width) => [Math.floor(flat / width), flat % width];
  const index = (flat, width) => { const [y, x] = place(flat, width); return stage().axes === 1 ? `${x}` : `${y},${x}`; };
  const gridOfSteps = () => transposed() ? stage().input_size : stage().output_size;

  // ---- grids: one SVG per map; `set` changes numbers and marks without drawing again ----
  const tones = { input: "--input", kernel: "--kernel", output: "--output" };
  const grid = ({ rows, cols, values, tone, cell, pad = null, tint = null, label, live = null, steps: keys = false }) => {
    const node = svg("svg", { class: "grid" + (live ? " live" : ""), viewBox: `-2 -2 ${cols * cell + 4} ${rows * cell + 4}`, width: cols * cell + 4, role: "img", "aria-label": label, tabindex: keys ? 0 : null });
    const numbers = values.map(Number).filter(Number.isFinite);
    const top = Math.max(1e-12, ...numbers.map(Math.abs));
    const cells = [], texts = [];
    const longest = Math.max(1, ...values.map((v) => F(v).length));
    const size = Math.min(cell * .42, cell * .92 / (.61 * longest));
    for (let at = 0; at < rows * cols; at++) {
      const [y, x] = place(at, cols);
      const outer = pad && (y < pad[0][0] || y >= pad[0][1] || x < pad[1][0] || x >= pad[1][1]);
      const rect = svg("rect", { class: "c" + (outer ? " pad" : ""), x: x * cell, y: y * cell, width: cell, height: cell, "data-at": at });
      const text = svg("text", { class: outer ? "pad" : "", x: (x + .5) * cell, y: (y + .5) * cell, "font-size": size });
      cells.push(rect); texts.push(text); node.append(rect);
    }
    if (size >= 5.5) node.append(...texts);
    const marks = svg("g");
    node.append(marks);
    const set = (list, visible = null) => list.forEach((value, at) => {
      const number = Number(value), outer = cells[at].classList.contains("pad"), later = visible !== null && !visible(at);
      texts[at].textContent = value === null ? "" : F(value);
      cells[at].classList.toggle("later", later); texts[at].classList.toggle("later", later);
      if (tint !== null) {
        const bright = Math.max(0, Math.min(255, number));
        cells[at].style.fill = outer ? "" : `rgb(${tint.map((part) => Math.round(part * bright)).join(",")})`;
        texts[at].style.fill = outer ? "" : bright * (tint[0] * .3 + tint[1] * .59 + tint[2] * .11) > 120 ? "#000" : "#fff";
      } else if (!outer || tone !== "input") {
        const share = Number.isFinite(number) ? Math.abs(number) / top * 42 : 0;
        cells[at].style.fill = outer ? "" : `color-mix(in srgb, var(${tones[tone]}) ${share.toFixed(0)}%, var(--surface))`;
      }
    });
    const mark = (list) => marks.replaceChildren(...list.flatMap(({ at, kind, text }) => {
      const [y, x] = place(at, cols);
      const parts = [svg("rect", { class: kind, x: x * cell + (kind === "tap" ? 0 : 0), y: y * cell, width: cell, height: cell })];
      if (text !== undefined && cell >= 30) parts.push(svg("text", { class: "weight", x: (x + .97) * cell - text.length * cell * .085 - 2, y: (y + .84) * cell, "font-size": cell * .26 }, text));
      return parts;
    }));
    const outline = (box) => { if (box) for (const kind of ["halo", "mark"]) marks.append(svg("rect", { class: kind, x: box[1] * cell, y: box[0] * cell, width: (box[3] - box[1]) * cell, height: (box[2] - box[0]) * cell })); };
    set(values);
    if (live) {
      const find = (event) => { const at = event.target.getAttribute && event.target.getAttribute("data-at"); return at === null || at === undefined ? null : Number(at); };
      node.addEventListener("pointerover", (event) => { const at = find(event); if (at !== null) live.over(at); });
      node.addEventListener("pointerleave", () => live.out());
      node.addEventListener("click", (event) => { const at = find(event); if (at !== null && live.pick) live.pick(at); });
    }
    return { node, set, mark, outline, cells, rows, cols };
  };
  const figure = (caption, map, extra = "") => el("figure", { class: extra }, el("figcaption", {}, ...[caption].flat()), map.node);
  const tint = (c) => state.stage === 0 && data.tints[data.channel_names[c]] || null;

  // ---- view 1: the sliding window ----
  let view = null;
  const buildSlide = () => {
    const s = stage(), list = channels(state.filter), many = list.length > 1;
    $(".views").classList.toggle("many", many);
    const room = ($("#slide").clientWidth || 320) - 8;
    const [, H, W] = s.frame_size, [K, P, Q] = s.output_size, [, h, w] = s.input_size;
    const stepLive = { over: (at) => { if (!state.timer) { state.hover = at; paint(); } }, out: () => { state.hover = null; paint(); }, pick: (at) => { stop(); go(at); } };
    const cellLive = { over: (at) => { if (!state.timer) { state.cell = at; paint(); } }, out: () => { state.cell = null; paint(); } };
    view = { inputs: [], kernels: [], output: null };
    // The largest cells with which everything stands in one line; else with which each input stands beside its kernel.
    const left = transposed() ? w : W, out = transposed() ? W : Q, kernelWide = pooled() ? 0 : s.kernel[1];
    const inLine = many ? (room - 72 * list.length - 40) / (list.length * (left + kernelWide) + out) : (room - 30) / (left + Math.max(kernelWide, transposed() ? 0 : out));
    const oneLine = inLine >= (many ? 16 : 21);
    const pairWide = (room - 30) / (left + kernelWide), cell = Math.max(9, Math.min(42, Math.floor(oneLine ? Math.min(inLine, room / out) : Math.min(pairWide >= 18 ? Math.min(pairWide, 30) : room / left, room / out))));
    const nodes = [];
    for (const [i, c] of list.entries()) {
      const map = transposed()
        ? grid({ rows: h, cols: w, values: s.input[c], tone: "input", cell, tint: tint(c), label: `input ${channelName(c)}; arrow keys choose a cell`, live: stepLive, steps: i === 0 })
        : grid({ rows: H, cols: W, values: s.frame[c], tone: "input", cell, pad: s.inner, tint: tint(c), label: `input ${channelName(c)}; arrow keys point at a cell`, live: cellLive, steps: i === 0 });
      view.inputs.push(map);
      const pair = el("div", { class: "pair" }, figure(["input ", el("b", {}, channelName(c)), `  ${s.axes === 1 ? w : `${h}×${w}`}`], map));
      if (!pooled()) {
        const kernel = grid({ rows: s.kernel[0], cols: s.kernel[1], values: kernelOf(state.filter, i), tone: "kernel", cell: Math.min(cell, 38), label: "kernel" });
        view.kernels.push(kernel);
        pair.append(figure([s.flipped ? "turned " : "kernel ", el("b", {}, transposed() ? `[${c},${state.filter}]` : `[${state.filter},${i}]`)], kernel));
      }
      if (many && i) nodes.push(el("span", { class: "sign" }, "+"));
      nodes.push(pair);
    }
    view.output = transposed()
      ? grid({ rows: H, cols: W, values: s.frame[state.filter], tone: "output", cell, pad: s.inner, label: "output; arrow keys point at a cell", live: cellLive, steps: true })
      : grid({ rows: P, cols: Q, values: s.output[state.filter], tone: "output", cell, label: `output map ${state.filter}; arrow keys choose a cell`, live: stepLive, steps: true });
    const output = figure(["output ", el("b", {}, K > 1 ? `map ${state.filter}` : "map"), `  ${s.axes === 1 ? Q : `${P}×${Q}`}`, transposed() && (H !== P || W !== Q) ? ", dashed: cropped" : ""], view.output);
    if (many) nodes.push(el("span", { class: "sign" }, s.bias ? `+ ${F(s.bias[state.filter])} =` : "="), output);
    else if (oneLine && !transposed() && !pooled()) nodes[0].lastChild.append(el("div", { style: { height: ".7rem" } }), ...output.childNodes);
    else nodes.push(output);
    $("#slide").replaceChildren(el("div", { class: many ? "line-up" : "stack" }, nodes));
    for (const map of [view.inputs[0], view.output]) {
      const steps = (map === view.output) !== transposed();  // cells of this map are steps; those of the other are only pointed at
      map.node.addEventListener("keydown", steps ? gridKeys : (event) => pointKeys(event, map));
      if (!steps) map.node.addEventListener("blur", cellLive.out);
    }
  };
  const pointKeys = (event, map) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Escape") { state.cell = null; paint(); }
    if (!move) return;
    event.preventDefault(); event.stopPropagation(); stop();
    const [y, x] = state.cell === null ? [0, 0] : place(state.cell, map.cols).map((v, axis) => v + move[axis]);
    if (y >= 0 && y < map.rows && x >= 0 && x < map.cols) { state.cell = y * map.cols + x; paint(); }
  };
  const gridKeys = (event) => {
    const wide = gridOfSteps()[2], move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[event.key];
    if (move === undefined) return;
    event.preventDefault(); event.stopPropagation(); stop();
    const to = state.step + move;
    if (to >= 0 && to < steps()) go(to);
  };
  const paintSlide = () => {
    const s = stage(), l = shown(), reads = s.reads[l], list = channels(state.filter), W = s.frame_size[2];
    const ys = reads.map((at) => place(at, W)[0]), xs = reads.map((at) => place(at, W)[1]);
    const box = [Math.min(...ys), Math.min(...xs), Math.max(...ys) + 1, Math.max(...xs) + 1];
    if (transposed()) {
      view.inputs.forEach((map) => map.mark([{ at: l, kind: "mark" }, ...readers().map(([from]) => ({ at: from, kind: "read" }))]));
      view.output.set(s.grown[l][state.filter]);
      const stamp = (t) => s.rows[l][state.filter * reads.length + t];
      view.output.mark([...reads.map((at, t) => ({ at, kind: "tap", text: (Number(stamp(t)) < 0 ? "" : "+") + F(stamp(t)) })), ...(state.cell === null ? [] : [{ at: state.cell, kind: "now" }])]);
      view.output.outline(box);
    } else {
      view.inputs.forEach((map, i) => {
        const weights = pooled() ? null : kernelOf(state.filter, i);
        const best = s.winners ? s.winners[state.filter][l] : null;
        map.mark([...reads.map((at, t) => ({ at, kind: t === best ? "best" : "tap", text: weights ? "×" + F(weights[t]) : undefined })), ...(state.cell === null ? [] : [{ at: state.cell, kind: "read" }])]);
        map.outline(box);
      });
      view.output.set(s.output[state.filter], (at) => at <= Math.max(state.step, state.hover ?? 0) || state.cell !== null);
      view.output.mark([{ at: l, kind: "now" }, ...readers().map(([at]) => ({ at, kind: "read" }))]);
    }
  };
  // The positions whose windows touch the cell pointed at, each with its tap.
  const readers = () => state.cell === null ? [] : stage().reads.flatMap((list, at) => { const t = list.indexOf(state.cell); return t < 0 ? [] : [[at, t]]; });

  // ---- the sum in numbers ----
  const term = (x, w, isPad) => el("span", { class: "term" }, el("i", { class: isPad ? "pad" : "x" }, signed(x)), "·", el("i", { class: "w" }, signed(w)));
  const joined = (parts, sign = " + ") => parts.flatMap((part, i) => i ? [sign, part] : [part]);
  const isPad = (at) => { const s = stage(), [y, x] = place(at, s.frame_size[2]); return y < s.inner[0][0] || y >= s.inner[0][1] || x < s.inner[1][0] || x >= s.inner[1][1]; };
  const line = (...parts) => el("span", { class: "line" }, ...parts);
  const paintSum = () => {
    const s = stage(), l = shown(), f = state.filter, reads = s.reads[l], T = reads.length, list = channels(f);
    const many = s.output_size[0] > 1, parts = [];
    const name = (at) => el("span", { class: "name" }, `y[${many ? f + "," : ""}${index(at, s.output_size[2])}]`);
    if (s.kind === "convolution") {
      const bias = s.bias ? s.bias[f] : null;
      const total = el("span", { class: "total" }, F(s.output[f][l]));
      const window = (i, c) => joined(reads.map((at, t) => term(s.rows[l][c * T + t], kernelOf(f, i)[t], isPad(at))));
      if (list.length === 1) {
        parts.push(line(name(l), " = ", ...window(0, list[0]), bias === null ? "" : ` + bias ${F(bias)}`));
        parts.push(line("= ", ...joined(s.products[f][l].map(signed)), bias === null ? "" : ` + ${signed(bias)}`, " = ", total));
      } else {
        parts.push(line(name(l), " = ", ...joined(list.map((c, i) => signed(s.partial[f][i][l]))), bias === null ? "" : ` + bias ${F(bias)}`, " = ", total));
        list.forEach((c, i) => parts.push(line(el("span", { class: "of" }, channelName(c) + "  "), ...window(i, c), " = ", el("b", {}, F(s.partial[f][i][l])))));
      }
    } else if (s.kind === "max") {
      const values = s.rows[f][l];
      parts.push(line(name(l), " = max(", ...joined(values.map((v, t) => el("span", { class: "term" + (t === s.winners[f][l] ? " best" : "") }, el("i", { class: isPad(reads[t]) ? "pad" : "x" }, F(v)))), ", "), ") = ", el("span", { class: "total" }, F(s.output[f][l]))));
      parts.push(line(el("span", { class: "of" }, "the largest wins; the others have no influence, and get no gradient")));
    } else if (s.kind === "sum") {
      parts.push(line(name(l), " = (", ...joined(s.rows[f][l].map((v, t) => el("i", { class: isPad(reads[t]) ? "pad" : "x" }, signed(v)))), ")·", el("i", { class: "w" }, signed(s.scale[f])), s.bias ? ` + bias ${F(s.bias[f])}` : "", " = ", el("span", { class: "total" }, F(s.output[f][l]))));
      parts.push(line(el("span", { class: "of" }, `one weight${s.bias ? " and one bias" : ""} for the whole channel: both are learned`)));
    } else if (s.kind === "average") {
      parts.push(line(name(l), " = (", ...joined(s.rows[f][l].map((v, t) => el("i", { class: isPad(reads[t]) ? "pad" : "x" }, signed(v)))), `) / ${F(s.divisors[l])} = `, el("span", { class: "total" }, F(s.output[f][l]))));
    } else {
      list.forEach((c, i) => parts.push(line(el("span", { class: "of" }, `x[${many || s.input_size[0] > 1 ? c + "," : ""}${index(l, s.input_size[2])}] = `), el("i", { class: "x" }, F(s.input[c][l])), " stamps ", ...joined(kernelOf(f, i).map((w, t) => ["", el("span", { class: "term" }, el("i", { class: "x" }, signed(s.input[c][l])), "·", el("i", { class: "w" }, signed(w)))]).flat().filter((p) => p !== ""), ", "))));
      parts.push(line("adds ", ...joined(reads.map((_, t) => F(s.rows[l][f * T + t])), ", "), " to the marked cells; where stamps overlap they add up"));
    }
    if (state.cell !== null) {
      const found = readers(), where = index(state.cell, s.frame_size[2]);
      if (transposed()) {
        const terms = found.flatMap(([at, t]) => list.map((c, i) => term(s.input[c][at], kernelOf(f, i)[t], false)));
        parts.push(line(el("span", { class: "name" }, isPad(state.cell) ? `cropped cell [${where}]` : "output cell"), " = ", ...(terms.length ? joined(terms) : ["0 (no stamp reaches it)"]), s.bias && !isPad(state.cell) ? ` + bias ${F(s.bias[f])}, before it: ` : " = ", el("span", { class: "total" }, F(s.frame[f][state.cell]))));
      } else parts.push(line(el("span", { class: "of" }, `the cell pointed at is read by ${found.length} window${found.length === 1 ? "" : "s"} (dashed)`)));
    }
    $("#sum").replaceChildren(...parts);
  };

  // ---- views 2 and 3: matrices on a canvas; rows are positions ----
  // A board: blocks side by side, {rows, cols, value(r, c) or null where empty, tone, mark: {row?, col?}, title}.
  const board = (holder, blocks, pick) => {
    const room = Math.max(260, holder.clientWidth - 4), gap = 26, tall = Math.max(...blocks.map((b) => b.rows)), wide = blocks.reduce((sum, b) => sum + b.cols * (b.stretch || 1), 0);
    const cell = Math.max(11, Math.min(30, Math.floor((room - gap * (blocks.length - 1) - 4) / wide)));
    const width = wide * cell + gap * (blocks.length - 1) + 4, headroom = blocks.some((b) => b.head) ? cell + 10 : 0, height = tall * cell + 20 + headroom, ratio = Math.min(2, window.devicePixelRatio || 1) * (wide * tall > 60000 ? .75 : 1);
    const canvas = el("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio), style: { width: width + "px", height: height + "px" } });
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.textAlign = "center"; pen.textBaseline = "middle";
    let left = 2;
    const ink = colour("ink"), muted = colour("muted"), edge = colour("line"), surface = colour("surface"), raised = colour("raised"), places = [];
    for (const block of blocks) {
      const own = cell * (block.stretch || 1), tone = colour(block.tone), top = 18 + headroom;
      pen.fillStyle = muted; pen.font = "11px system-ui, sans-serif"; pen.textAlign = "left"; pen.fillText(block.title || "", Math.max(2, Math.min(left, width - 2 - pen.measureText(block.title || "").width)), 8); pen.textAlign = "center";
      let most = 1e-12;
      for (let r = 0; r < block.rows; r++) for (let c = 0; c < block.cols; c++) { const v = Number(block.value(r, c) ?? 0); if (Number.isFinite(v)) most = Math.max(most, Math.abs(v)); }
      for (let r = 0; r < block.rows; r++) for (let c = 0; c < block.cols; c++) {
        const value = block.value(r, c), x = left + c * own, y = top + r * cell;
        const number = Number(value ?? 0), active = (block.row === undefined || block.row === r) && (block.col === undefined || block.col === c);
        pen.globalAlpha = 1;
        pen.fillStyle = value === null ? raised : surface; pen.fillRect(x, y, own, cell);
        if (value !== null && !(block.hidden && block.hidden(r))) {
          pen.globalAlpha = Number.isFinite(number) ? .1 + .5 * Math.abs(number) / most : .1; pen.fillStyle = tone; pen.fillRect(x, y, own, cell);
          pen.globalAlpha = active ? 1 : .78; pen.fillStyle = ink;
          const text = F(value), size = Math.min(cell * .56, own * .92 / (.6 * text.length));
          if (size >= 5.5) { pen.font = `${active ? "bold " : ""}${size}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`; pen.fillText(text, x + own / 2, y + cell / 2 + .5); }
        }
        pen.globalAlpha = 1; pen.strokeStyle = edge; pen.lineWidth = .7; pen.strokeRect(x, y, own, cell);
      }
      if (block.head) {
        const highest = Math.max(1e-12, ...block.head.map((v) => Math.abs(Number(v))));
        block.head.forEach((value, c) => {
          const x = left + c * own, active = block.row === undefined || value !== null && block.value(block.row, c) !== null, text = F(value), size = Math.min(cell * .56, own * .92 / (.6 * text.length));
          pen.fillStyle = surface; pen.fillRect(x, 18, own, cell);
          pen.globalAlpha = .1 + .5 * Math.abs(Number(value)) / highest; pen.fillStyle = colour(block.headTone); pen.fillRect(x, 18, own, cell);
          pen.globalAlpha = active ? 1 : .45; pen.fillStyle = ink;
          if (size >= 5.5) { pen.font = `${active ? "bold " : ""}${size}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`; pen.fillText(text, x + own / 2, 18 + cell / 2 + .5); }
          pen.globalAlpha = 1; pen.strokeStyle = edge; pen.lineWidth = .7; pen.strokeRect(x, 18, own, cell);
        });
      }
      pen.lineWidth = 2.4; pen.strokeStyle = colour(block.row !== undefined && block.tone !== "output" ? "kernel" : block.tone);
      if (block.row !== undefined) pen.strokeRect(left, top + block.row * cell, block.cols * own, cell);
      if (block.col !== undefined) pen.strokeRect(left + block.col * own, top, own, block.rows * cell);
      places.push({ left, own, top, cell, block });
      left += block.cols * own + gap;
      if (block !== blocks[blocks.length - 1]) { pen.fillStyle = ink; pen.font = "16px system-ui, sans-serif"; pen.fillText(block.then || "", left - gap / 2, top + Math.min(tall, 9) * cell / 2); }
    }
    canvas.addEventListener("pointermove", (event) => { const spot = at(event); if (spot !== null && !state.timer && spot !== state.hover) { state.hover = spot; paint(); } });
    canvas.addEventListener("pointerleave", () => { if (state.hover !== null) { state.hover = null; paint(); } });
    canvas.addEventListener("click", (event) => { const spot = at(event); if (spot !== null) { stop(); go(spot); } });
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      for (const p of places) if (x >= p.left && x < p.left + p.own * p.block.cols) {
        const r = Math.floor((y - p.top) / p.cell), c = Math.floor((x - p.left) / p.own);
        if (r < 0 || r >= p.block.rows) return null;
        return p.block.pick ? p.block.pick(r, c) : null;
      }
      return null;
    };
    holder.replaceChildren(canvas);
    return { cell, top: 18 + headroom };
  };
  const follow = (holder, made, row) => { const y = made.top + row * made.cell; if (y < holder.scrollTop || y + made.cell > holder.scrollTop + holder.clientHeight) holder.scrollTop = Math.max(0, y - holder.clientHeight / 2); };
  const width = (values) => Math.max(1, Math.min(2.4, .42 * Math.max(...values.map((v) => F(v).length))));

  const paintRows = () => {
    const s = stage(), f = state.filter, l = shown(), T = s.reads[0].length, list = channels(f), holder = $("#rows");
    const own = (r) => r, doneTo = Math.max(state.step, l);
    let made;
    if (s.kind === "convolution") {
      const weights = list.flatMap((_, i) => kernelOf(f, i)), out = s.output[f];
      const above = weights.length > Math.max(12, s.rows.length);  // a long column of weights lies down above the windows
      made = board(holder, [
        { rows: s.rows.length, cols: weights.length, value: (r, c) => s.rows[r][list[Math.floor(c / T)] * T + c % T], tone: "input", row: l, title: above ? `w above its columns; ${s.rows.length}×${weights.length} windows` : `${s.rows.length}×${weights.length} windows`, then: above ? "=" : "·", pick: own, ...(above ? { head: weights, headTone: "kernel" } : {}) },
        ...(above ? [] : [{ rows: weights.length, cols: 1, value: (r) => weights[r], tone: "kernel", title: "w", then: "=", stretch: width(weights) }]),
        { rows: out.length, cols: 1, value: (r) => out[r], tone: "output", row: l, title: "y", hidden: (r) => r > doneTo, stretch: width(out), pick: own },
      ]);
    } else if (pooled()) {
      const rows = s.rows[f], out = s.output[f];
      made = board(holder, [
        { rows: rows.length, cols: T, value: (r, c) => rows[r][c], tone: "input", row: l, title: `${rows.length}×${T} windows`, then: s.kind === "max" ? "→" : "→", pick: own },
        { rows: out.length, cols: 1, value: (r) => out[r], tone: "output", row: l, title: { max: "max", average: "mean", sum: s.bias ? "·w + b" : "·w" }[s.kind], hidden: (r) => r > doneTo, stretch: width(out), pick: own },
      ]);
    } else {
      const stamps = s.rows.map((row) => row.slice(f * T, f * T + T));
      made = board(holder, [
        { rows: s.rows.length, cols: list.length, value: (r, c) => s.input[list[c]][r], tone: "input", row: l, title: "x", then: "·", pick: own, stretch: width(list.flatMap((c) => s.input[c])) },
        { rows: list.length, cols: T, value: (r, c) => kernelOf(f, r)[c], tone: "kernel", title: "w", then: "=" },
        { rows: s.rows.length, cols: T, value: (r, c) => stamps[r][c], tone: "output", row: l, title: "stamps", hidden: (r) => r > doneTo, pick: own },
      ]);
    }
    follow(holder, made, l);
    holder.setAttribute("aria-label", `windows as rows; row ${l + 1} of ${s.reads.length} is marked`);
  };

  const dense = new WeakMap();  // rows of a stage's matrix as maps from column to value
  const lines = (s) => {
    if (!dense.has(s)) {
      const made = Array.from({ length: s.matrix.size[0] }, () => new Map());
      s.matrix.at[0].forEach((r, i) => made[r].set(s.matrix.at[1][i], s.matrix.values[i]));
      dense.set(s, made);
    }
    return dense.get(s);
  };
  const paintMatrix = () => {
    const s = stage(), f = state.filter, l = shown(), holder = $("#matrix");
    $("#turn").hidden = !s.matrix || pooled() ;
    if (!s.matrix) { holder.replaceChildren(el("p", { class: "notice" }, s.output.flat().every((v) => Number.isFinite(Number(v))) ? "This matrix has more than two million elements, so it is not drawn." : "A window reads nothing but padding: no row of a matrix stands for it, so there is none.")); return; }
    const all = lines(s), each = s.output[0].length, list = channels(f), doneTo = Math.max(state.step, l);
    const one = s.matrix_shape[1] * s.matrix_shape[2], span = list.length * one;
    const column = (c) => list[Math.floor(c / one)] * one + c % one;  // the columns of the channels that this filter reads
    const read = (values) => Array.from({ length: span }, (_, c) => values[column(c)]);
    const vector = read(s.matrix_input), out = s.output[f];
    const value = (r, c) => all[f * each + r].get(column(c)) ?? null;
    const turned = state.turned && !pooled();
    let made, row = l;
    // The vector stands above the matrix, each of its numbers over the column that it multiplies.
    if (!turned) {
      const forward = s.kind !== "transposed";
      made = board(holder, [
        { rows: each, cols: span, value, head: vector, headTone: "input", tone: "kernel", ...(forward ? { row: l } : { col: l }), title: `x above its columns; the matrix, ${each}×${span}`, then: "=", pick: forward ? (r) => r : (_, c) => c < steps() ? c : null },
        { rows: each, cols: 1, value: (r) => out[r], tone: "output", title: s.bias ? "y, with bias" : "y", hidden: forward ? (r) => r > doneTo : undefined, stretch: width(out), ...(forward ? { row: l, pick: (r) => r } : {}) },
      ]);
      if (!forward) row = 0;
    } else {
      const back = read(s.returned), single = s.output_size[0] / s.groups === 1;
      made = board(holder, [
        { rows: span, cols: each, value: (r, c) => value(c, r), head: out, headTone: "output", tone: "kernel", ...(s.kind === "transposed" ? { row: l } : { col: l }), title: `y above its columns; transposed, ${span}×${each}`, then: single ? "=" : "", pick: s.kind === "transposed" ? (r) => r < steps() ? r : null : (_, c) => c },
        ...(single ? [{ rows: span, cols: 1, value: (r) => back[r], tone: "input", title: "not x", stretch: width(back) }] : []),
      ]);
      row = s.kind === "transposed" ? l : 0;
    }
    follow(holder, made, row);
    holder.setAttribute("aria-label", `the kernel matrix, ${s.matrix.size[0]} by ${s.matrix.size[1]}`);
  };

  // ---- below: partial maps, words, comparison, photo, code ----
  let parts = null;
  const buildPartial = () => {
    const s = stage(), list = channels(state.filter), [, P, Q] = s.output_size;
    $("#partial").hidden = !s.partial || list.length < 2;
    parts = null;
    if ($("#partial").hidden) return;
    const cell = Math.max(8, Math.min(34, Math.floor((($("#partial").clientWidth || 600) - 70 - 42 * list.length) / (Q * (list.length + 1)))));
    const make = (values, tone, label) => grid({ rows: P, cols: Q, values, tone, cell, label, live: { over: (at) => { if (!state.timer) { state.hover = at; paint(); } }, out: () => { state.hover = null; paint(); }, pick: (at) => { stop(); go(at); } } });
    parts = [...list.map((c, i) => make(s.partial[state.filter][i], "kernel", `map of ${channelName(c)} alone`)), make(s.output[state.filter], "output", "their sum")];
    const sign = (text) => el("span", { class: "sign" }, text);
    const row = list.flatMap((c, i) => [i ? sign("+") : null, figure([el("b", {}, channelName(c)), ` ∗ kernel [${state.filter},${i}]`], parts[i])]);
    if (s.bias) row.push(sign(`+ ${F(s.bias[state.filter])}`));
    $("#maps").replaceChildren(...row.filter(Boolean), sign("="), figure(["feature map ", el("b", {}, state.filter)], parts[parts.length - 1]));
    $("#n-partial").textContent = `Filter ${state.filter} has ${list.length} kernels, one per channel it reads. Each makes a map of its own; added up${s.bias ? ", with one bias," : ""} they are one feature map.`;
  };
  const buildWords = () => {
    const s = stage();
    $("#words").hidden = s.kind !== "convolution";
    if (s.kind !== "convolution") return;
    const [k, c] = s.weight_shape, most = 6, cell = Math.max(s.kernel[1] > 5 ? 14 : 20, 12);
    const filters = Array.from({ length: Math.min(k, most) }, (_, f) => el("div", { class: "box filter" + (f === state.filter ? " on" : "") },
      el("span", { class: "tag" }, el("b", {}, `filter ${f}`), `: ${c === 1 ? "one kernel" : `${c} kernels, one per channel that it reads`}; makes feature map ${f}`),
      el("div", { class: "filterrow" }, Array.from({ length: Math.min(c, most) }, (_, i) => figure([el("b", {}, `[${f},${i}]`), ` on ${data.channel_names[channels(f)[i]] || channels(f)[i]}`], grid({ rows: s.kernel[0], cols: s.kernel[1], values: s.weight[f][i], tone: "kernel", cell, label: `kernel ${f},${i}` }))), c > most ? `… and ${c - most} more` : null)));
    const note = (word, text) => [el("dt", {}, word), el("dd", {}, text)];
    $("#anatomy").replaceChildren(el("div", { class: "anatomy" },
      el("div", { class: "box" }, el("span", { class: "tag" }, el("b", {}, "the layer"), ` holds one weight of ${s.weight_shape.slice(0, 2).join("×")}×${s.axes === 1 ? s.kernel[1] : s.kernel.join("×")}: ${k} filter${k === 1 ? "" : "s"}, ${s.parameters} parameters${s.bias ? " with the bias" : ""}`), el("div", { class: "flow" }, filters), k > most ? `… and ${k - most} more filters` : null),
      el("dl", { class: "legend" },
        note("channel", `${s.input_size[0] === 1 ? "the map that comes in" : `one of the ${s.input_size[0]} maps that come in`}; a photo has R, G and B`),
        note("kernel", `${s.axes === 1 ? s.kernel[1] : s.kernel.join("×")} numbers laid on one channel`),
        note("filter", `a stack of kernels, one per channel that it reads (${c}); its sums make one output map`),
        note("feature map", `what one filter answers at all ${s.output[0].length} positions; the next layer's channel`))));
  };
  const wiring = (scene) => {
    const step = 24, levels = [], first = scene.stages[0];
    levels.push([first.input_size[0], "wire-in"]);
    scene.stages.forEach((s, i) => levels.push([s.output_size[0], i === scene.stages.length - 1 ? "wire-out" : "wire-mid"]));
    const tall = Math.max(...levels.map(([n]) => n)) * step, x = (level) => 8 + level * 90, y = (n, i) => tall * (i + .5) / n;
    const node = svg("svg", { class: "wiring", width: x(levels.length - 1) + 40, height: tall + 4, role: "img", "aria-label": `which channels each filter of ${scene.name} reads` });
    scene.stages.forEach((s, level) => { const c = s.weight_shape[1], per = s.output_size[0] / s.groups; for (let k = 0; k < s.output_size[0]; k++) for (let i = 0; i < c; i++) node.append(svg("line", { x1: x(level) + 24, y1: y(s.input_size[0], s.order[Math.floor(k / per) * c + i]), x2: x(level + 1), y2: y(s.output_size[0], k) })); });
    levels.forEach(([n, kind], level) => { for (let i = 0; i < n; i++) node.append(svg("rect", { class: kind, x: x(level), y: y(n, i) - 9, width: 24, height: 18 }), svg("text", { x: x(level) + 12, y: y(n, i) + 4, "text-anchor": "middle" }, String(i))); });
    return node;
  };
  const buildComparison = () => {
    $("#comparison").hidden = data.scenes.length < 2;
    if (data.scenes.length < 2) return;
    const head = ["operator", "which channels reach which maps", "groups", "parameters", "multiply-adds", "output"];
    const rows = data.scenes.map((scene, i) => el("tr", {}, el("td", {}, el("button", { class: "small", "aria-pressed": String(i === state.scene), onclick: () => choose(i, 0) }, scene.name), el("p", { class: "muted" }, scene.says)), el("td", {}, wiring(scene)), el("td", { class: "right" }, scene.stages.map((s) => s.groups).join(" + ")), el("td", { class: "right number" }, String(scene.parameters)), el("td", { class: "right number" }, String(scene.macs)), el("td", { class: "number" }, scene.stages[scene.stages.length - 1].output_size.join("×"))));
    $("#compared").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head.map((word, i) => el("th", { class: i > 1 && i < 5 ? "right" : "" }, word)))), el("tbody", {}, rows)));
  };
  const buildPhoto = () => {
    $("#photo").hidden = !data.picture;
    if (!data.picture || $("#picture").children.length) return;
    $("#picture").append(el("figure", {}, el("figcaption", {}, "the photo"), el("img", { src: data.picture, alt: "the photo", style: { width: "240px" } })), el("figure", {}, el("figcaption", {}, `as the operator reads it: ${stage().input_size.join("×")}`), el("img", { class: "pixels", src: data.small, alt: "the scaled photo", style: { width: "240px" } })),
      ...data.channel_pictures.map((uri, c) => el("figure", {}, el("figcaption", {}, "channel ", el("b", {}, data.channel_names[c])), el("img", { class: "pixels", src: uri, alt: `channel ${data.channel_names[c]}`, style: { width: "150px" } }))), data.credit ? el("p", { class: "muted" }, data.credit) : "");
  };
  const buildText = () => {
    const s = stage(), scene = data.scenes[state.scene];
    $("#says").textContent = scene.says;
    const names = s.axes === 1 ? ["length"] : ["height", "width"];
    $("#sizes").textContent = s.formulas.length === 2 && s.formulas[0] === s.formulas[1] ? `height and width: ${s.formulas[0]}` : s.formulas.map((f, i) => `${names[i]}: ${f}`).join("    ");
    $("#code").textContent = s.code;
    const say = {
      convolution: ["The window slides", "At each stop, multiply the numbers under the kernel by its weights and add them up." + (s.flipped ? " The kernel was turned around first: the convolution of mathematics." : ""), "Windows as rows (im2col)", "Each window is written out as a row; all stops at once are one matrix times one column.", "One matrix", "The kernel at every position, with zeros elsewhere: each row is one stop. The same few weights repeat." + (s.padding_mode === "zeros" ? "" : ` Its columns are the input with its ${s.padding_mode} padding.`)],
      transposed: ["The kernel is stamped", "Each input cell adds its value times the kernel to the output; overlapping stamps add up. The output grows from small to large.", "Stamps as rows (col2im)", "Value times kernel for every input cell; each row is then added where its stamp falls.", "The transposed matrix", "The convolution's matrix, turned: sizes swap, values are not restored. Each column is one stamp."],
      max: ["The window slides", "Only the largest number under the window goes on.", "Windows as rows", "Each window as a row; the largest of each row remains.", "A matrix that depends on the input", "One 1 per row, at the winner: max pooling selects. Other numbers, another matrix: it is not linear."],
      sum: ["The window slides", "The numbers under the window are added; the sum is multiplied by the channel's weight, and its bias is added.", "Windows as rows", "Each window as a row; each row's sum, times the weight, plus the bias.", "One matrix", "Every tap weighs the same, and that one weight is learned: two parameters for each channel. LeNet-5 (1998) pools like this."],
      average: ["The window slides", "The mean of the numbers under the window.", "Windows as rows", "Each window as a row; each row is averaged.", "One matrix", "Every tap weighs the same: average pooling is a convolution with a constant kernel, channel by channel."],
    }[s.kind];
    ["t-slide", "n-slide", "t-rows", "n-rows", "t-matrix", "n-matrix"].forEach((id, i) => { $("#" + id).textContent = say[i]; });
  };
  const buildTabs = () => {
    const nodes = [];
    if (data.scenes.length > 1) data.scenes.forEach((scene, i) => nodes.push(el("button", { "aria-pressed": String(i === state.scene), onclick: () => choose(i, 0) }, scene.name)));
    const own = data.scenes[state.scene].stages;
    if (own.length > 1) own.forEach((_, i) => nodes.push(el("span", { class: "then" }, i ? "then" : "stages:"), el("button", { "aria-pressed": String(i === state.stage), onclick: () => choose(state.scene, i) }, i ? "2 pointwise" : "1 depthwise")));
    $("#tabs").replaceChildren(...nodes);
    const menu = $("#filter"), count = stage().output_size[0];
    menu.replaceChildren(...Array.from({ length: count }, (_, f) => el("option", { value: f, selected: f === state.filter }, String(f))));
    $("#filterbox").hidden = count < 2;
    $("#filterbox").firstChild.textContent = pooled() ? "channel " : transposed() ? "output map " : "filter ";
    $("#step").max = steps() - 1;
  };

  // ---- drawing, in two depths: build (what is shown changed) and paint (the step changed) ----
  const build = () => { buildTabs(); buildText(); buildSlide(); buildPartial(); buildWords(); buildComparison(); buildPhoto(); paint(); };
  const paint = () => {
    const l = shown();
    $("#step").value = l;
    $("#where").textContent = `${l + 1} / ${steps()}`;
    $("#step").setAttribute("aria-valuetext", `step ${l + 1} of ${steps()}`);
    paintSlide(); paintSum(); paintRows(); paintMatrix();
    if (parts) { parts.forEach((map) => map.mark([{ at: l, kind: "now" }])); }
  };
  const choose = (scene, at) => { stop(); Object.assign(state, { scene, stage: at, filter: 0, step: 0, hover: null, cell: null }); build(); };
  const go = (to) => { state.hover = null; state.cell = null; state.step = Math.max(0, Math.min(steps() - 1, to)); paint(); };
  const stop = () => { clearInterval(state.timer); state.timer = null; $("#play").textContent = "▶ Play"; };
  const play = () => {
    if (state.timer) { stop(); return; }
    if (state.step >= steps() - 1) go(0);
    $("#play").textContent = "❚❚ Pause";
    state.timer = setInterval(() => { if (state.step >= steps() - 1) stop(); else go(state.step + 1); }, Number($("#speed").value));
  };
  const filterTo = (f) => { const count = stage().output_size[0]; state.filter = (f + count) % count; state.hover = null; state.cell = null; build(); };
  $("#step").addEventListener("input", (event) => { stop(); go(Number(event.target.value)); });
  $("#first").addEventListener("click", () => { stop(); go(0); });
  $("#back").addEventListener("click", () => { stop(); go(state.step - 1); });
  $("#forward").addEventListener("click", () => { stop(); go(state.step + 1); });
  $("#play").addEventListener("click", play);
  $("#filter").addEventListener("change", (event) => filterTo(Number(event.target.value)));
  $("#speed").addEventListener("change", () => { if (state.timer) { stop(); play(); } });
  $("#turn").addEventListener("click", () => { state.turned = !state.turned; $("#turn").setAttribute("aria-pressed", String(state.turned)); paint(); });
  $("#copy").addEventListener("click", () => copy(stage().code, $("#copy")));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName) && !(event.key === " " && event.target.id === "step")) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    const act = { ArrowRight: () => { stop(); go(state.step + 1); }, ArrowLeft: () => { stop(); go(state.step - 1); }, Home: () => { stop(); go(0); }, End: () => { stop(); go(steps() - 1); }, " ": play, "[": () => filterTo(state.filter - 1), "]": () => filterTo(state.filter + 1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  let wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; build(); } });
  document.addEventListener("themechange", paint);
  for (const moment of ["beforeprint", "afterprint"]) addEventListener(moment, () => paint());
  convolve.animation = { state, stage, go, choose, filterTo };
  build();
})();
