// The book's players, on top of the lab's scripts: each fills a box from the data of docs/players.py.
"use strict";
(function () {
  const ebbtide = window.ebbtide, {draw, walk, network, Player, Walk, digits} = ebbtide;
  const indices = (n) => Array.from({length: n}, (_, i) => i);
  const SQUARE = [[-3.4, 3.4], [-3.4, 3.4]];

  // ── The forward process: a cloud that dissolves, and every density of a single point ────────────────────────────────

  function forward(box, data) {
    const player = new Player(box), points = network.numbers(data.points, true), n = points.length / 2;
    const noise = network.noise(0, indices(n), -1, 2);
    let start = 2.5;
    player.t = 0.35;

    const cloud = player.stage("three clusters, x_t = α x₀ + σ ε");
    const bands = player.stage("p(x_t | x₀), all times; drag x₀ up or down", {label: "density of x_t over time, from a single x₀"});
    bands.canvas.style.touchAction = "none";
    bands.canvas.style.cursor = "ns-resize";
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      start = Math.min(Math.max(opened().back(event.offsetX, event.offsetY)[1], -3), 3);
      player.controls.start.value = start;
      player.draw();
    };
    bands.canvas.addEventListener("pointerdown", drag);
    bands.canvas.addEventListener("pointermove", drag);

    player.clock({forward: true, name: "time, from data to noise", seconds: 5});
    player.choose("path", "path", [["ddpm", "DDPM's β"], ["linear", "linear (flow)"], ["cosine", "cosine"], ["bridge", "bridge"]]);
    player.range("low", "first β", {min: -5, max: -2, step: 0.25, value: -4, format: (v) => (10 ** v).toPrecision(2)});
    player.range("high", "last β", {min: 0.002, max: 0.05, step: 0.001, value: 0.02, format: (v) => digits(v, 3)});
    player.range("steps", "steps T", {min: 50, max: 2000, step: 50, value: 1000});
    player.range("start", "x₀", {min: -3, max: 3, step: 0.1, value: start, format: (v) => digits(v, 1)});
    player.checks(["routes", "routes of a few points", true]);

    let scales = null, table = null;
    function path() {
      const {path: name, low, high, steps} = player.chosen;
      return network.path(name === "ddpm" ? {name, beta_min: Math.min(10 ** low, high), beta_max: high, steps} : {name});
    }
    player.changed = (name) => {
      if (name === "start") start = player.controls.start.value;
      scales = path();
      table = Array.from({length: 121}, (_, k) => scales(k / 120));
      for (const own of ["low", "high", "steps"]) player.controls[own].label.hidden = player.chosen.path !== "ddpm";
      player.draw();
    };

    const opened = () => bands.open([[0, 1], [-3.6, 3.6]], {equal: false});
    player.paint = (t) => {
      const c = scales(t), s = cloud.open(SQUARE), {theme} = s;
      const x = points.map((value, k) => c.alpha * value + c.sigma * noise[k]);
      if (player.chosen.routes) {
        const times = indices(31).map((k) => (k / 30) * t);
        const frames = times.map(scales).map((own) => points.map((value, k) => own.alpha * value + own.sigma * noise[k]));
        draw.routes(s, frames, indices(12), {times, width: 1, alpha: 0.8});
      }
      draw.particles(s, x, {labels: data.labels, alpha: 0.8});
      draw.axes(s);

      const b = opened(), columns = 120, rows = 96, values = new Float32Array(columns * rows);
      for (let i = 0; i < columns; i++) {
        const own = scales((i + 0.5) / columns), width = Math.max(own.sigma, 0.03);
        for (let j = 0; j < rows; j++) {
          const far = (-3.6 + ((j + 0.5) / rows) * 7.2 - own.alpha * start) / width;
          values[j * columns + i] = Math.exp((-far * far) / 2) / Math.max(width, 0.25);
        }
      }
      draw.density(b, null, {values: {columns, rows, values}, colour: theme.diffusion, strength: 0.85});
      const along = table.map((own) => own.t);
      draw.curve(b, along, table.map((own) => own.alpha * start), {colour: theme.ink, width: 2});
      for (const side of [-1, 1])
        draw.curve(b, along, table.map((own) => own.alpha * start + side * own.sigma), {colour: theme.ink, width: 1, dash: [4, 3]});
      draw.curve(b, [t, t], [-3.6, 3.6], {colour: theme.ink, width: 1.5});
      draw.axes(b, {x: "t", y: "x", xTicks: [[0.12, "data"], [0.5, "0.5"], [0.87, "noise"]]});
      draw.text(b, "x₀", 0, start, {align: "left", dx: 4, dy: -10});

      const end = scales(1), left = end.alpha ** 2;
      player.facts.textContent = `At t = ${digits(t)}: α = ${digits(c.alpha, 3)}, σ = ${digits(c.sigma, 3)}, signal to noise ` +
        `${c.sigma ? digits((c.alpha / c.sigma) ** 2, 2) : "∞"}. At t = 1 ${left < 1e-4 ? "nothing is" : `${(100 * left).toPrecision(2)} % of the data's variance is`} ` +
        `left${left > 0.05 ? ": too much to start from pure noise" : ""}.`;
    };
    player.changed();
    return player;
  }

  // ── Routes of diffusion and of flow, from the same noise ────────────────────────────────────────────────────────────

  // Data in a network's units, so that networks of one data set share a frame.
  const real = (model) => network.numbers(model.real, true).map((value, k) => (value - model.centre[k % 2]) / model.scale[k % 2]);
  const FRAME = [[-2.9, 2.9], [-2.9, 2.9]];

  function routes(box, flow, diffusion) {
    const player = new Player(box, [flow, diffusion]), n = 500, behind = real(flow);
    const own = [new Walk(2), new Walk(2)], names = ["flow matching", "diffusion"];
    let picked = null;
    const views = names.map((name, k) => player.stage(name, {label: `routes of ${name} from noise to data; a click, or an arrow key, shows one`,
      stepped: (by) => (picked = Math.min(Math.max((picked === null ? -1 : picked) + by, 0), n - 1)), clicked: (px, py) => {
      const x = own[k].at(player.t);
      const found = x ? draw.nearest(views[k].open(FRAME), x, px, py) : -1;
      picked = found < 0 || found === picked ? null : found;
      player.draw();
    }}));
    player.clock();
    player.choose("sampler", "diffusion samples by", [["ddim", "DDIM, its ODE"], ["ddpm", "DDPM, with noise"]]);
    player.range("steps", "steps", {min: 1, max: 100, value: 60, live: false});
    player.range("seed", "seed", {min: 0, max: 50, value: 0, live: false});
    player.range("count", "routes", {min: 0, max: 60, value: 24});
    player.checks(["dots", "all 500 samples", true]);

    player.changed = (name) => {
      if (name === "count") return player.draw();
      const {sampler, steps, seed} = player.chosen;
      [["ddim", flow], [sampler, diffusion]].forEach(([way, model], k) => {
        const times = walk.times("uniform", {}, steps, network.path(model.path));
        player.walk(own[k], k, k, {sampler: way, times, n, seed}, report);
      });
    };
    function report() {
      if (!own.every((walk) => walk.whole)) return;
      const long = own.map((walk) => digits(walk.straightness()));
      player.facts.textContent = `A route is on average ${long[0]} times as long as the straight way (flow), ${long[1]} times (diffusion).`;
      if (!report.played) player.play();
      report.played = true;
    }
    player.paint = (t) => {
      views.forEach((view, k) => {
        const s = view.open(FRAME), colour = k ? s.theme.diffusion : s.theme.flow, x = own[k].at(t);
        draw.particles(s, behind, {colour: s.theme.real, size: 1.2, alpha: 0.35});
        if (x) {
          const [frames, times] = own[k].until(t), only = indices(Math.min(player.chosen.count, n));
          draw.routes(s, frames, only, {times, width: 1.1, alpha: 0.75});
          draw.particles(s, x, {colour, alpha: 0.75, only: player.chosen.dots ? null : only});
          if (picked !== null) {
            draw.routes(s, own[k].frames, [picked], {colour: s.theme.paper, width: 6});
            draw.routes(s, own[k].frames, [picked], {times: own[k].times, width: 3});
            draw.particles(s, x, {colour: s.theme.ink, only: [picked], size: 5, alpha: 1});
          }
        }
        draw.axes(s);
      });
    };
    player.changed();
    return player;
  }

  // ── Samplers on grids: the error against the exact flow, by evaluations ─────────────────────────────────────────────

  // The end of a walk, once it is there.
  const end = (player, slot, model, asked) => new Promise((resolve) => {
    player.remote.ask({kind: "walk", slot, model, ...asked}, ({x, last}) => last && resolve(x));
  });
  // The median distance of points; a few that end in another mode would rule a mean.
  const apart = (x, y) => {
    const far = indices(x.length / 2).map((i) => Math.hypot(x[2 * i] - y[2 * i], x[2 * i + 1] - y[2 * i + 1]));
    return far.sort((a, b) => a - b)[Math.floor(far.length / 2)];
  };
  const COUNTS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

  function solvers(box, flow, diffusion) {
    const player = new Player(box, [flow, diffusion]), n = 200, behind = real(flow), models = [flow, diffusion];
    const paths = models.map((model) => network.path(model.path)), exact = [], curves = new Map();
    let ends = null, current = "", token = 0;
    const view = player.stage("samples → where the exact flow leads");
    const chart = player.stage("distance from the exact flow, by evaluations", {label: "error of samplers by number of evaluations"});
    player.left.append(player.facts);
    player.choose("model", "network", [[0, "flow matching"], [1, "diffusion"]]);
    player.choose("sampler", "sampler", [["ddim", "DDIM"], ["euler", "Euler"], ["heun", "Heun"], ["midpoint", "midpoint"],
      ["rk4", "Runge–Kutta 4"], ["dpmpp_2m", "DPM-Solver++ 2M"]], "heun");
    player.choose("grid", "grid", Object.keys(walk.GRIDS).map((name) => [name, name.replace("_", " ")]), "uniform");
    player.range("steps", "steps", {min: 1, max: 64, value: 8, live: false});

    // DDIM at 160 steps is not exact enough; a Runge–Kutta method in the flow's clock, where no path has kinks, is.
    const reference = (k) => (exact[k] = exact[k] || end(player, `exact ${k}`, k,
      {sampler: "rk4", options: {clock: "flow"}, times: walk.times("flow_power", {exponent: 1.5}, 100, paths[k]), n}));

    async function changed() {
      const own = ++token, {model, sampler, grid, steps} = player.chosen, k = Number(model);
      const name = `${["flow", "diffusion"][k]}, ${sampler.replace("dpmpp_2m", "2M")}, ${grid.replace("_", " ")}`;
      const to = await reference(k), asked = (steps) => ({sampler, times: walk.times(grid, {}, steps, paths[k]), n});
      const x = await end(player, "shown", k, asked(steps));
      if (own !== token) return;
      current = name;
      const error = apart(x, to), calls = walk.evaluations(sampler, steps);
      ends = {x, to, error, calls};
      player.facts.textContent = `${calls} evaluation${calls > 1 ? "s" : ""}: off by ${error.toPrecision(2)} (median; the data's standard deviation is 1).`;
      player.draw();
      if (!curves.has(name)) {
        if (curves.size > 4) curves.delete(curves.keys().next().value);
        curves.set(name, []);
      }
      const curve = curves.get(name);
      for (const count of COUNTS.slice(curve.length)) {
        const found = apart(await end(player, "curve", k, asked(count)), to);
        if (own !== token) return;
        curve.push([walk.evaluations(sampler, count), found]);
        player.draw();
      }
    }
    player.changed = () => void changed();
    const log = (pairs) => [pairs.map(([calls]) => Math.log10(calls)), pairs.map(([, error]) => Math.log10(error))];

    player.paint = () => {
      const s = view.open(FRAME), c = chart.open([[-0.1, 2.45], [-4.2, 0.6]], {equal: false});
      draw.particles(s, behind, {colour: s.theme.real, size: 1.2, alpha: 0.35});
      if (ends) {
        draw.arrows(s, ends.x, ends.to, {colour: s.theme.ink, alpha: 0.5});
        draw.particles(s, ends.x, {colour: s.theme.flow, alpha: 0.85});
      }
      draw.axes(s);
      const tints = [c.theme.quiet, ...c.theme.classes];
      draw.axes(c, {x: "evaluations", y: "median error", xTicks: [1, 3, 10, 30, 100].map((v) => [Math.log10(v), String(v)]),
        yTicks: [[-4, "10⁻⁴"], [-3, "10⁻³"], [-2, "10⁻²"], [-1, "0.1"], [0, "1"]]});
      let k = 0;
      for (const [name, curve] of curves) {
        const own = name === current, colour = own ? c.theme.diffusion : tints[k++ % tints.length];
        draw.curve(c, ...log(curve), {colour, width: own ? 2.6 : 1.3, dash: own ? [] : [[5, 3], [2, 2], [8, 3, 2, 3], [1, 3]][k % 4]});
        if (curve.length > 1) {
          const [x, y] = log(curve.slice(-1));
          draw.text(c, name, x[0], Math.max(y[0], -4.05), {colour, align: "right", dy: -9, size: 11});
        }
      }
      if (ends) draw.particles(c, Float32Array.from([Math.log10(ends.calls), Math.log10(ends.error)]), {colour: c.theme.ink, size: 5, alpha: 1});
    };
    player.changed();
    return player;
  }

  // ── A student's jumps, beside its teacher with as many evaluations ──────────────────────────────────────────────────

  function jumps(box, student, flow) {
    const player = new Player(box, [student, flow]), n = 500, behind = real(flow), path = network.path(flow.path);
    const own = [new Walk(2), new Walk(2)], fine = new Walk(2);
    const views = ["the student's jumps", "its teacher by Euler's method"].map((name) => player.stage(name));
    player.clock({seconds: 3});
    player.range("steps", "evaluations of either", {min: 1, max: 8, value: 1});
    player.range("seed", "seed", {min: 0, max: 50, value: 0, live: false});
    player.range("count", "routes", {min: 0, max: 60, value: 20});
    player.checks(["exact", "the exact routes", true]);

    player.changed = (name) => {
      if (name === "count") return player.draw();
      const {steps, seed} = player.chosen;
      const times = student.sampling.own[steps] || walk.times("flow_power", {exponent: 2}, steps, path);
      player.walk(own[0], 0, 0, {sampler: "jump", times, n, seed}, report);
      player.walk(own[1], 1, 1, {sampler: "euler", times: walk.times("uniform", {}, steps, path), n, seed}, report);
      if (name !== "steps") player.walk(fine, 2, 1, {sampler: "heun", times: walk.times("quadratic", {}, 40, path), n, seed}, report);
    };
    function report() {
      if (![...own, fine].every((walk) => walk.whole)) return;
      const last = (walk) => walk.frames[walk.frames.length - 1];
      const [mine, its] = own.map((walk) => apart(last(walk), last(fine)).toPrecision(2));
      const {steps} = player.chosen;
      player.facts.textContent = `From where the flow leads, ${steps} evaluation${steps > 1 ? "s" : ""} of the student end${steps > 1 ? "" : "s"} ` +
        `${mine} away (median), of the teacher ${its}.`;
    }
    player.paint = (t) => views.forEach((view, k) => {
      const s = view.open(FRAME), x = own[k].at(t), only = indices(player.chosen.count);
      draw.particles(s, behind, {colour: s.theme.real, size: 1.2, alpha: 0.35});
      if (player.chosen.exact && fine.frames.length) draw.routes(s, fine.frames, only, {colour: s.theme.quiet, width: 0.8, alpha: 0.7});
      if (x) {
        const [frames, times] = own[k].until(t);
        draw.routes(s, frames, only, {times, width: 1.4, alpha: 0.9});
        draw.particles(s, x, {colour: k ? s.theme.flow : s.theme.classes[0], alpha: 0.75});
      }
      draw.axes(s);
    });
    player.changed();
    return player;
  }

  // ── Guidance: the class itself, and more than itself ────────────────────────────────────────────────────────────────

  function guidance(box, model) {
    const player = new Player(box, [model]), n = 400, behind = real(model), classes = model.classes.length;
    const path = network.path(model.path), own = [new Walk(2), new Walk(2)];
    const views = ["w = 1: the class itself", "w"].map((name) => player.stage(name, {label: "samples by class"}));
    player.clock();
    player.range("weight", "guidance w", {min: 0, max: 8, step: 0.25, value: 3, format: (v) => digits(v)});
    player.choose("label", "class", [["turn", "every class in turn"], ...model.classes.map((name, k) => [k, name])]);
    player.range("low", "guided above t", {min: 0, max: 0.9, step: 0.1, value: 0, format: (v) => digits(v, 1)});
    player.range("seed", "seed", {min: 0, max: 50, value: 0, live: false});
    player.checks(["routes", "routes", false]);

    player.changed = (name) => {
      const {weight, label, low, seed} = player.chosen, labels = ebbtide.labelsOf(label, classes, n);
      const asked = {sampler: "heun", times: walk.times("quadratic", {}, 16, path), n, seed, label: labels};
      if (name !== "weight" && name !== "low") player.walk(own[0], 0, 0, {...asked, weight: 1}, () => {});
      player.walk(own[1], 1, 0, {...asked, weight, interval: [low, 1]}, report);
    };
    const spread = (x, labels) => {
      const one = indices(n).filter((i) => labels[i] === labels[0]);
      const mean = [0, 1].map((j) => one.reduce((sum, i) => sum + x[2 * i + j], 0) / one.length);
      return Math.sqrt(one.reduce((sum, i) => sum + (x[2 * i] - mean[0]) ** 2 + (x[2 * i + 1] - mean[1]) ** 2, 0) / one.length);
    };
    function report() {
      if (!own.every((walk) => walk.whole)) return;
      const [plain, guided] = own.map((walk) => spread(walk.frames[walk.frames.length - 1], walk.label));
      player.facts.textContent = `31 evaluations a sample without guidance, up to 62 with it. Spread of ${model.classes[own[1].label[0]]}: ` +
        `${digits(plain)} by itself, ${digits(guided)} guided.`;
    }
    player.paint = (t) => views.forEach((view, k) => {
      const s = view.open([[-3.2, 3.2], [-3.2, 3.2]]), x = own[k].at(t);
      draw.particles(s, behind, {colour: s.theme.real, size: 1.2, alpha: 0.35});
      if (x) {
        const [frames, times] = own[k].until(t);
        if (player.chosen.routes) draw.routes(s, frames, indices(25), {times, width: 1, alpha: 0.8});
        draw.particles(s, x, {labels: own[k].label, alpha: 0.8, size: 2.4});
      }
      draw.axes(s);
      if (k) view.words.textContent = `w = ${digits(player.chosen.weight)}`;
    });
    player.changed();
    return player;
  }

  // ── Couplings: pairs by chance and by optimal transport, and the routes that are learned from them ──────────────────

  function coupling(box, pairs, flow, coupled) {
    const player = new Player(box, [flow, coupled]), n = 300, behind = real(flow), path = network.path(flow.path);
    const [data, noise] = [network.numbers(pairs.data), network.numbers(pairs.noise)], own = [new Walk(2), new Walk(2)];
    const orders = [indices(pairs.order.length), pairs.order];
    const length = orders.map((order) => apart(data, order.flatMap((j) => [noise[2 * j], noise[2 * j + 1]])));
    const views = ["a batch, paired by chance", "the same, by optimal transport", "routes learned from chance", "routes learned from transport"]
      .map((name) => player.stage(name));
    player.row.style.setProperty("--eb-columns", 2);
    player.row.style.setProperty("--eb-narrow", 2);
    player.clock();
    player.range("steps", "steps of Euler's method", {min: 1, max: 40, value: 3});
    player.range("count", "routes", {min: 0, max: 80, value: 48});
    player.range("seed", "seed", {min: 0, max: 50, value: 0, live: false});
    const fine = [new Walk(2), new Walk(2)];
    player.changed = (name) => {
      if (name === "count") return player.draw();
      const {steps, seed} = player.chosen;
      for (const k of [0, 1]) {
        player.walk(own[k], k, k, {sampler: "euler", times: walk.times("uniform", {}, steps, path), n, seed}, report);
        if (name !== "steps") player.walk(fine[k], 2 + k, k, {sampler: "heun", times: walk.times("quadratic", {}, 32, path), n, seed}, report);
      }
    };
    function report() {
      if (![...own, ...fine].every((walk) => walk.whole)) return;
      const last = (walk) => walk.frames[walk.frames.length - 1], far = own.map((walk, k) => apart(last(walk), last(fine[k])).toPrecision(2));
      player.facts.textContent = `Pairs are ${digits(length[0])} apart by chance, ${digits(length[1])} by transport (median). Routes are ` +
        `${digits(fine[0].straightness())} and ${digits(fine[1].straightness())} times as long as straight; ${own[0].times.length - 1} steps end ${far[0]} and ${far[1]} off.`;
    }
    player.paint = (t) => views.forEach((view, k) => {
      const s = view.open(FRAME), colour = k % 2 ? s.theme.classes[0] : s.theme.flow;
      draw.particles(s, behind, {colour: s.theme.real, size: 1.2, alpha: 0.3});
      if (k < 2) {
        const to = Float32Array.from(orders[k].flatMap((j) => [noise[2 * j], noise[2 * j + 1]]));
        const x = data.map((value, i) => (1 - t) * value + t * to[i]);
        draw.routes(s, [to, data], indices(data.length / 2), {width: 1, alpha: 0.5, colour: s.theme.quiet});
        draw.particles(s, x, {colour, size: 2.6, alpha: 0.95});
      } else if (own[k - 2].at(t)) {
        const x = own[k - 2].at(t), only = indices(Math.min(player.chosen.count, n)), [frames, times] = own[k - 2].until(t);
        draw.routes(s, frames, only, {times, width: 1.1, alpha: 0.8});
        draw.particles(s, x, {colour, alpha: 0.8});
      }
      draw.axes(s);
    });
    player.changed();
    return player;
  }

  // ── Targets: what one network's answer is in each of them ───────────────────────────────────────────────────────────

  function targets(box, flow, diffusion) {
    const player = new Player(box, [flow, diffusion]), models = [flow, diffusion], cells = [15, 15];
    const names = {x0: "x̂₀", noise: "noise ε̂", velocity: "velocity ẋ", v: "v", score: "score", edm: "EDM's F"};
    const points = network.numbers(flow.real, true).map((value, k) => (value - flow.centre[k % 2]) / flow.scale[k % 2]);
    const eps = network.noise(0, indices(points.length / 2), -1, 2), paths = models.map((model) => network.path(model.path));
    const views = Object.entries(names).map(([key, name]) => ({key, name, ...player.stage(name, {label: `the field of ${name}`})}));
    player.row.style.setProperty("--eb-columns", 3);
    player.row.style.setProperty("--eb-narrow", 2);
    player.t = 0.4;
    player.clock({forward: true, name: "time, from data to noise"});
    player.choose("model", "network", [[0, "flow (velocity)"], [1, "diffusion (noise)"]]);
    let found = null, asked = "";
    player.changed = () => player.draw();
    player.paint = (t) => {
      const k = Number(player.chosen.model), time = Math.min(Math.max(t, 0.01), 0.99), c = paths[k](time);
      const x = points.map((value, i) => c.alpha * value + c.sigma * eps[i]);
      let places = null;
      for (const view of views) {
        const s = view.open(FRAME);
        places = places || draw.lattice(s, cells);
        draw.particles(s, x, {colour: s.theme.real, size: 1.2, alpha: 0.4});
        if (found && found.k === k) {
          const [a, b] = network.TARGETS[view.key](found.c, {}), y = network.combine(a, found.x0, b, found.noise);
          const mean = Math.sqrt(y.reduce((sum, value) => sum + value * value, 0) / (y.length / 2));
          view.words.textContent = `${view.name}, ${digits(mean, mean < 10 ? 2 : 0)} long`;
          draw.field(s, y, cells, {colour: view.key === models[k].target.name ? s.theme.diffusion : s.theme.ink, alpha: 0.8});
        }
        draw.axes(s, {ticked: false});
      }
      if (asked !== `${k},${time}`) {
        asked = `${k},${time}`;
        player.estimate(0, k, {x: places, t: time}, ({x0, noise}) => { found = {k, c, x0, noise}; player.draw(); });
      }
      player.facts.textContent = `One evaluation of the network, whose own target is drawn in orange: ŷ = a x̂₀ + b ε̂ is the same answer in all six.`;
    };
    player.changed();
    return player;
  }

  Object.assign(ebbtide.players, {forward, routes, solvers, jumps, guidance, coupling, targets});
})();
