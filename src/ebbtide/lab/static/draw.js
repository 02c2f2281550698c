// Drawing on a canvas: particles, routes, arrows, a density, curves and axes. No state, no library.
//
// A plain script that sets window.ebbtide.draw. Everything is drawn through a stage, which maps data to pixels:
//
//   const {draw} = window.ebbtide
//   const s = draw.stage(canvas, [[-2, 2], [-2, 2]])      limits [[x low, x high], [y low, y high]]; clears the canvas
//   draw.density(s, points, {dim})                        where many of the points are, as a wash of colour
//   draw.axes(s, {x: "x", y: "y"})                        frame, a few ticks and the columns' names
//   draw.particles(s, points, {dim, labels})              dots; a colour and a marker for each class
//   draw.arrows(s, from, to, {dim})                       from each point of one array to that of another
//   draw.field(s, vectors, [columns, rows])               arrows on the lattice that draw.lattice(s, …) gave
//   draw.routes(s, frames, ids, {dim})                    the ways of a few samples through a list of arrays of points
//   draw.curve(s, xs, ys, {colour, dash})                 a line through (x, y) pairs
//   draw.text(s, "x₀", x, y)                              a word at data coordinates, with a halo
//   draw.pixels(canvas, values, height, width, channels)  an image of values in [low, high], by default [-1, 1]
//   draw.nearest(s, points, px, py, {dim})                the index of the point at CSS pixel (px, py), or -1
//
// points: a Float32Array of n rows of `dim` numbers (2 unless given), drawn by the columns `of` ([0, 1] unless given).
// With dim 1 the second coordinate is a fixed scatter in [-1, 1], the same for sample i at all times.
//
// A stage s has: context, width and height (CSS pixels), limits, x(value) and y(value) → CSS pixels, back(px, py) →
// [x, y], and theme. draw.stage's options: equal (true: one scale for both axes, the limits grow), margin ({left,
// right, top, bottom} in CSS pixels), keep (true: don't clear).
//
// theme: {dark, ink, quiet, rule, paper, real, flow, diffusion, classes, time}, chosen by the colour of the canvas's
// text, so a page only has to set `color`; theme.time(t) is a CSS colour, yellow at t = 1 (noise) to violet at t = 0.
"use strict";
(function () {
  const root = typeof self === "undefined" ? globalThis : self;
  const ebbtide = (root.ebbtide = root.ebbtide || {});

  // Okabe & Ito's colours, as in plots/style.py; on a dark page black and the dark ones give way to light ones.
  const LIGHT = {
    dark: false, ink: "#1f1f1f", quiet: "#5c5c5c", rule: "#cfcfcf", paper: "#ffffff", real: "#6f6f6f",
    flow: "#0072b2", diffusion: "#d55e00",
    classes: ["#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"],
  };
  const DARK = {
    dark: true, ink: "#ececec", quiet: "#a8a8a8", rule: "#4a4a4a", paper: "#131416", real: "#9a9a9a",
    flow: "#56b4e9", diffusion: "#ff8a3d",
    classes: ["#2fc79a", "#e39ac4", "#f0b53a", "#7cc9f5", "#ffffff"],
  };
  const MANY = 800; // dots, beyond which small ones are drawn as bars
  const MARKERS = ["circle", "square", "up", "diamond", "down"];
  // Viridis from violet (0) to yellow (1) in nine stops; its palest and darkest ends are left out.
  const TIME = [[68, 1, 84], [71, 39, 119], [62, 73, 137], [48, 103, 141], [37, 130, 142], [30, 157, 136],
    [53, 183, 120], [109, 206, 88], [181, 222, 43]];
  const TIME_DARK = [[150, 95, 190], [122, 110, 200], [98, 128, 200], [78, 148, 196], [64, 168, 188], [58, 186, 168],
    [84, 203, 140], [140, 217, 104], [205, 229, 75]];

  function timeColour(stops, t) {
    const place = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2), share = place - i;
    return `rgb(${stops[i].map((low, k) => Math.round(low + share * (stops[i + 1][k] - low))).join(",")})`;
  }
  LIGHT.time = (t) => timeColour(TIME, t);
  DARK.time = (t) => timeColour(TIME_DARK, t);

  function theme(element) {
    const rgb = (getComputedStyle(element).color.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
    return 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] > 128 ? DARK : LIGHT;
  }

  // Class k's colour and marker; beyond 25 classes they repeat.
  function classStyle(own, k) {
    return [own.classes[k % 5], MARKERS[(k + Math.floor(k / 5)) % 5]];
  }

  function stage(canvas, limits, {equal = true, margin = {}, keep = false} = {}) {
    const width = canvas.clientWidth || 300, height = canvas.clientHeight || 300;
    const ratio = Math.min(root.devicePixelRatio || 1, 3);
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const context = canvas.getContext("2d");
    context.restore(); // ends the stage before, whose frame nothing was drawn outside of
    context.save();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!keep) context.clearRect(0, 0, width, height);
    const {left = 6, right = 6, top = 6, bottom = 6} = margin;
    const inner = [Math.max(width - left - right, 1), Math.max(height - top - bottom, 1)];
    context.beginPath();
    context.rect(left, top, ...inner);
    context.clip();
    let [[x0, x1], [y0, y1]] = limits;
    if (equal) {
      const unit = Math.max((x1 - x0) / inner[0], (y1 - y0) / inner[1]);
      const [cx, cy] = [(x0 + x1) / 2, (y0 + y1) / 2];
      [x0, x1] = [cx - (unit * inner[0]) / 2, cx + (unit * inner[0]) / 2];
      [y0, y1] = [cy - (unit * inner[1]) / 2, cy + (unit * inner[1]) / 2];
    }
    const [kx, ky] = [inner[0] / (x1 - x0), inner[1] / (y1 - y0)];
    return {
      canvas, context, width, height, ratio, theme: theme(canvas),
      limits: [[x0, x1], [y0, y1]], box: [left, top, inner[0], inner[1]],
      x: (value) => left + (value - x0) * kx,
      y: (value) => top + (y1 - value) * ky,
      back: (px, py) => [x0 + (px - left) / kx, y1 - (py - top) / ky],
    };
  }

  // A number in [-1, 1] for sample i: where a sample of a single column stands across it.
  function scatter(i) {
    const word = Math.imul(i + 1, 0x9e3779b1) >>> 0;
    return (((word ^ (word >>> 15)) >>> 0) / 2147483648 - 1) * 0.8;
  }

  function reader(points, dim, of) {
    if (dim === 1) return [(i) => points[i], scatter];
    return [(i) => points[i * dim + of[0]], (i) => points[i * dim + of[1]]];
  }

  function marker(context, kind, x, y, r) {
    context.beginPath();
    if (kind === "circle") context.arc(x, y, r, 0, 7);
    else if (kind === "square") context.rect(x - 0.86 * r, y - 0.86 * r, 1.72 * r, 1.72 * r);
    else {
      const corners = {up: [0, -1.2, 1.1, 0.8, -1.1, 0.8], down: [0, 1.2, 1.1, -0.8, -1.1, -0.8],
        diamond: [0, -1.3, 1.1, 0, 0, 1.3, -1.1, 0]}[kind];
      for (let k = 0; k < corners.length; k += 2) context.lineTo(x + r * corners[k], y + r * corners[k + 1]);
      context.closePath();
    }
    context.fill();
  }

  // A dot drawn once and stamped many times.
  const stamps = new Map();
  function stamp(kind, colour, r, ratio) {
    const key = [kind, colour, r, ratio].join();
    if (!stamps.has(key)) {
      if (stamps.size > 400) stamps.clear();
      const side = Math.ceil(2 * (1.4 * r + 1) * ratio);
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = side;
      const context = canvas.getContext("2d");
      context.fillStyle = colour;
      marker(context, kind, side / 2, side / 2, r * ratio);
      stamps.set(key, canvas);
    }
    return stamps.get(key);
  }

  // labels: a class for each point. colour: of points without a class. size: radius in CSS pixels. only: indices.
  function particles(s, points, {dim = 2, of = [0, 1], labels = null, colour = s.theme.flow, size = 2, alpha = 0.75,
    only = null, kind = "circle"} = {}) {
    const [px, py] = reader(points, dim, of), context = s.context, n = only ? only.length : points.length / dim;
    context.save();
    context.globalAlpha = alpha;
    if (n > MANY && size < 2.5) return bars();
    for (let k = 0; k < n; k++) {
      const i = only ? only[k] : k, [own, shape] = labels ? classStyle(s.theme, labels[i]) : [colour, kind];
      const dot = stamp(shape, own, size, s.ratio), half = dot.width / s.ratio / 2;
      context.drawImage(dot, s.x(px(i)) - half, s.y(py(i)) - half, 2 * half, 2 * half);
    }
    context.restore();

    // Two bars across each other, round enough at this size, in the marker's colour alone: a fiftieth of a stamp's time
    // without a graphics card. The smallest are one bar.
    function bars() {
      const half = 0.95 * size, thin = 0.6 * size, tiny = size < 1.5, groups = new Map();
      context.globalAlpha = tiny ? alpha : 0.8 * alpha;
      for (let k = 0; k < n; k++) {
        const i = only ? only[k] : k, own = labels ? classStyle(s.theme, labels[i])[0] : colour;
        if (!groups.has(own)) groups.set(own, []);
        groups.get(own).push(i);
      }
      for (const [own, members] of groups) {
        context.fillStyle = own;
        for (const i of members) {
          const x = s.x(px(i)), y = s.y(py(i));
          context.fillRect(x - half, y - thin, 2 * half, 2 * thin);
          if (!tiny) context.fillRect(x - thin, y - half, 2 * thin, 2 * half);
        }
      }
      context.restore();
    }
  }

  function arrow(context, x, y, u, v, head) {
    const length = Math.hypot(u, v);
    context.moveTo(x, y);
    context.lineTo(x + u, y + v);
    if (length > 2) {
      const tip = Math.min(head, 0.45 * length) / length;
      context.moveTo(x + u - tip * (u + 0.6 * v), y + v - tip * (v - 0.6 * u));
      context.lineTo(x + u, y + v);
      context.lineTo(x + u - tip * (u - 0.6 * v), y + v - tip * (v + 0.6 * u));
    }
  }

  function arrows(s, from, to, {dim = 2, of = [0, 1], colour = s.theme.ink, width = 1, alpha = 0.6, head = 5,
    only = null} = {}) {
    const [ax, ay] = reader(from, dim, of), [bx, by] = reader(to, dim, of), context = s.context;
    const n = only ? only.length : from.length / dim;
    context.save();
    Object.assign(context, {globalAlpha: alpha, strokeStyle: colour, lineWidth: width});
    context.beginPath();
    for (let k = 0; k < n; k++) {
      const i = only ? only[k] : k, x = s.x(ax(i)), y = s.y(ay(i));
      arrow(context, x, y, s.x(bx(i)) - x, s.y(by(i)) - y, head);
    }
    context.stroke();
    context.restore();
  }

  // The centres of columns × rows cells over the stage, row by row from below: n rows of 2 numbers.
  function lattice(s, [columns, rows]) {
    const [[x0, x1], [y0, y1]] = s.limits, points = new Float32Array(2 * columns * rows);
    for (let k = 0; k < columns * rows; k++) {
      points[2 * k] = x0 + ((k % columns + 0.5) / columns) * (x1 - x0);
      points[2 * k + 1] = y0 + ((Math.floor(k / columns) + 0.5) / rows) * (y1 - y0);
    }
    return points;
  }

  // vectors: 2 numbers for each point of the lattice. The longest but a twentieth is one cell long, none more than 1.5.
  function field(s, vectors, [columns, rows], {colour = s.theme.quiet, alpha = 0.55, width = 1} = {}) {
    const places = lattice(s, [columns, rows]), context = s.context, n = columns * rows;
    const lengths = Array.from({length: n}, (_, k) => Math.hypot(vectors[2 * k], vectors[2 * k + 1]));
    const most = [...lengths].sort((a, b) => a - b)[Math.floor(0.95 * (n - 1))] || 1;
    const cell = Math.min(s.box[2] / columns, s.box[3] / rows);
    context.save();
    Object.assign(context, {globalAlpha: alpha, strokeStyle: colour, lineWidth: width});
    context.beginPath();
    for (let k = 0; k < n; k++) {
      const scale = (cell / most) * Math.min(1, (1.5 * most) / (lengths[k] || 1));
      const [u, v] = [vectors[2 * k] * scale, -vectors[2 * k + 1] * scale];
      arrow(context, s.x(places[2 * k]) - u / 2, s.y(places[2 * k + 1]) - v / 2, u, v, 4);
    }
    context.stroke();
    context.restore();
  }

  // frames: arrays of points, one for each of `times` (falling; evenly from 1 to 0 unless given). colour: one for all;
  // without it each piece has its time's. upto: the number of frames drawn.
  function routes(s, frames, ids, {dim = 2, of = [0, 1], times = null, colour = null, width = 1.4, alpha = 0.9,
    upto = frames.length} = {}) {
    const context = s.context, readers = frames.map((points) => reader(points, dim, of));
    context.save();
    Object.assign(context, {globalAlpha: alpha, lineWidth: width, lineJoin: "round", lineCap: "round"});
    const line = (from, to, stroke) => {
      context.strokeStyle = stroke;
      context.beginPath();
      for (const i of ids) {
        context.moveTo(s.x(readers[from][0](i)), s.y(readers[from][1](i)));
        for (let k = from + 1; k <= to; k++) context.lineTo(s.x(readers[k][0](i)), s.y(readers[k][1](i)));
      }
      context.stroke();
    };
    if (colour) line(0, upto - 1, colour);
    else {
      for (let k = 1; k < upto; k++) {
        const t = times ? (times[k] + times[k - 1]) / 2 : 1 - (k - 0.5) / Math.max(frames.length - 1, 1);
        line(k - 1, k, s.theme.time(t));
      }
    }
    context.restore();
  }

  // A histogram smoothed three times, as a wash of one colour. points: n rows of dim; or `values`, {columns, rows,
  // values} row by row from below, of an exact density. bins: across.
  function density(s, points, {dim = 2, of = [0, 1], colour = s.theme.real, values = null, bins = 72, most = 0,
    strength = 0.75} = {}) {
    let [columns, rows] = values ? [values.columns, values.rows]
      : [bins, Math.max(2, Math.round((bins * s.box[3]) / s.box[2]))];
    let counts = values ? Float32Array.from(values.values) : new Float32Array(columns * rows);
    if (!values) {
      const [px, py] = reader(points, dim, of), [[x0, x1], [y0, y1]] = s.limits;
      for (let i = 0; i < points.length / dim; i++) {
        const c = Math.floor(((px(i) - x0) / (x1 - x0)) * columns), r = Math.floor(((py(i) - y0) / (y1 - y0)) * rows);
        if (c >= 0 && c < columns && r >= 0 && r < rows) counts[r * columns + c] += 1;
      }
      for (let pass = 0; pass < 3; pass++) counts = smooth(counts, columns, rows);
    }
    const top = most || counts.reduce((a, b) => Math.max(a, b), 1e-30);
    const image = document.createElement("canvas");
    [image.width, image.height] = [columns, rows];
    const context = image.getContext("2d"), data = context.createImageData(columns, rows);
    const rgb = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const k = 4 * ((rows - 1 - r) * columns + c);
        data.data.set(rgb, k);
        data.data[k + 3] = 255 * strength * Math.sqrt(Math.min(counts[r * columns + c] / top, 1));
      }
    }
    context.putImageData(data, 0, 0);
    s.context.imageSmoothingEnabled = true;
    s.context.drawImage(image, ...s.box);
    return top;
  }

  function smooth(values, columns, rows) {
    const across = new Float32Array(values.length), out = new Float32Array(values.length);
    const at = (array, c, r) =>
      array[Math.min(Math.max(r, 0), rows - 1) * columns + Math.min(Math.max(c, 0), columns - 1)];
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++)
      across[r * columns + c] = 0.25 * at(values, c - 1, r) + 0.5 * at(values, c, r) + 0.25 * at(values, c + 1, r);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++)
      out[r * columns + c] = 0.25 * at(across, c, r - 1) + 0.5 * at(across, c, r) + 0.25 * at(across, c, r + 1);
    return out;
  }

  // About `count` round numbers from low to high, two at least.
  function ticks(low, high, count = 4) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const unit = power * ([1, 2, 5, 10].find((k) => k * power >= rough) || 10);
    const found = [];
    for (let k = Math.ceil(low / unit); k * unit <= high + 1e-9 * unit; k++) found.push(Number((k * unit).toPrecision(12)));
    return found.length > 1 || count > 64 ? found : ticks(low, high, 2 * count);
  }

  // x, y: names of the axes; ticked: false leaves the numbers out. xTicks, yTicks: [[value, "name"], …] instead.
  function axes(s, {x = "", y = "", ticked = true, xTicks = null, yTicks = null} = {}) {
    const {context, theme: own} = s, [left, top, width, height] = s.box;
    const put = (name, px, py, align, baseline) => {
      Object.assign(context, {textAlign: align, textBaseline: baseline});
      context.fillText(name, px, py);
    };
    const named = (value) => [value, String(value).replace("-", "−")];
    context.save();
    Object.assign(context, {strokeStyle: own.rule, fillStyle: own.quiet, lineWidth: 1, font: "11px system-ui, sans-serif"});
    context.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
    if (ticked) {
      for (const [value, name] of xTicks || ticks(...s.limits[0]).map(named)) {
        const px = s.x(value);
        if (px >= left + 8 && px <= left + width - 8) put(name, px, top + height - 4, "center", "bottom");
      }
      for (const [value, name] of yTicks || ticks(...s.limits[1]).map(named)) {
        const py = s.y(value);
        if (py >= top + 8 && py <= top + height - 18) put(name, left + 4, py, "left", "middle");
      }
    }
    context.fillStyle = own.ink;
    if (x) put(x, left + width - 4, top + height - (ticked ? 16 : 4), "right", "bottom");
    if (y) put(y, left + 4, top + 3, "left", "top");
    context.restore();
  }

  function curve(s, xs, ys, {colour = s.theme.ink, width = 1.6, dash = [], alpha = 1} = {}) {
    const context = s.context;
    context.save();
    Object.assign(context, {strokeStyle: colour, lineWidth: width, globalAlpha: alpha, lineJoin: "round"});
    context.setLineDash(dash);
    context.beginPath();
    for (let k = 0; k < xs.length; k++) context.lineTo(s.x(xs[k]), s.y(ys[k]));
    context.stroke();
    context.restore();
  }

  function text(s, words, x, y, {colour = s.theme.ink, align = "center", baseline = "middle", size = 12, dx = 0,
    dy = 0} = {}) {
    const context = s.context;
    context.save();
    Object.assign(context, {font: `${size}px system-ui, sans-serif`, textAlign: align, textBaseline: baseline,
      lineWidth: 3, lineJoin: "round", strokeStyle: s.theme.paper, fillStyle: colour});
    context.strokeText(words, s.x(x) + dx, s.y(y) + dy);
    context.fillText(words, s.x(x) + dx, s.y(y) + dy);
    context.restore();
  }

  // values: height × width × channels, or channels × height × width with first = true.
  function pixels(canvas, values, height, width, channels = 1, {low = -1, high = 1, first = true} = {}) {
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d"), data = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      for (let c = 0; c < 3; c++) {
        const own = Math.min(c, channels - 1);
        const value = values[first ? own * height * width + i : i * channels + own];
        data.data[4 * i + c] = ((value - low) / (high - low)) * 255; // a clamped array rounds and clips by itself
      }
      data.data[4 * i + 3] = 255;
    }
    context.putImageData(data, 0, 0);
  }

  function nearest(s, points, px, py, {dim = 2, of = [0, 1], within = 24} = {}) {
    const [ax, ay] = reader(points, dim, of);
    let best = -1, least = within * within;
    for (let i = 0; i < points.length / dim; i++) {
      const far = (s.x(ax(i)) - px) ** 2 + (s.y(ay(i)) - py) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  ebbtide.draw = {stage, theme, classStyle, particles, arrows, lattice, field, routes, density, ticks, axes, curve, text,
    pixels, nearest, marker};
})();
