// Samplers and grids in the browser: the updates of samplers/ddim.py, ode.py, dpm_solver.py, jump.py and the grids of
// core/times.py. A sampler is a generator of x after every step of a walk
//
//   {denoiser, x, grid, noised(x, std, address), estimate(x, c, to)}        grid: the scales at each of the times
//
// A plain script that sets window.ebbtide.walk:
//
//   ebbtide.walk.times("karras", {rho: 7}, steps, path)                     n + 1 falling times
//   ebbtide.walk.trajectory(denoiser, {sampler, options, times, n, seed, …})  x from noise to data, n rows each
//   ebbtide.walk.evaluations(sampler, steps, guided)                        calls of the network in as many steps
//   new ebbtide.walk.Remote(models)                                         the same in a worker, which answers later
"use strict";
(function () {
  function install(root) {
    const ebbtide = (root.ebbtide = root.ebbtide || {});
    const {combine, noise, ratio, tau} = ebbtide.network;

    // ── Grids ───────────────────────────────────────────────────────────────────────────────────────────────────────

    const even = (steps) => Array.from({length: steps + 1}, (_, i) => 1 - i / steps);
    const shiftedPower = (steps, exponent, shift = 1) =>
      even(steps).map((u) => u ** exponent).map((v) => (shift * v) / (1 + (shift - 1) * v));
    const roundHalfEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

    function fromRatios(steps, path, high, low, to, back) {
      high = Math.min(high, ratio(path(1)));
      const count = Math.max(steps, 2), values = [];
      for (let i = 0; i < steps; i++)
        values.push(i === 0 ? 1 : path.timeOf(back(to(high) + ((to(low) - to(high)) * i) / (count - 1))));
      return [...values, 0];
    }

    const GRIDS = {
      uniform: (steps) => even(steps),
      quadratic: (steps) => even(steps).map((t) => t * t),
      power: (steps, path, {exponent = 1.3}) => shiftedPower(steps, exponent),
      shifted: (steps, path, {shift = 3}) => shiftedPower(steps, 1, shift),
      flow_power: (steps, path, {exponent = 1.3, shift = 1}) => {
        const first = tau(path(1)), inner = shiftedPower(steps, exponent, shift).slice(1, -1);
        return [1, ...inner.map((share) => path.timeAt(share * first)), 0];
      },
      log_snr: (steps, path, {ratio_min = 0.01, ratio_max = 100}) =>
        fromRatios(steps, path, ratio_max, ratio_min, Math.log, Math.exp),
      karras: (steps, path, {rho = 7, ratio_min = 0.002, ratio_max = 80}) =>
        fromRatios(steps, path, ratio_max, ratio_min, (r) => r ** (1 / rho), (r) => r ** rho),
      trailing: (steps, path, {table = 0}) => {
        const n = table || path.entries;
        return Array.from({length: steps + 1}, (_, i) => roundHalfEven(n - (i * n) / steps) / n);
      },
    };
    const times = (name, options, steps, path) => GRIDS[name](steps, path, options || {});

    // ── Samplers ────────────────────────────────────────────────────────────────────────────────────────────────────

    const pairs = (walk) => walk.grid.slice(1).map((then, i) => [walk.grid[i], then, i]);

    // x_s = α_s x̂₀ + √(σ_s² - τ²) ε̂ + √V z,   τ² = η² β̃,   β̃ = β σ_s² / σ_t²;   V = τ², or β; 0 at the last step.
    function ancestral(walk, x, now, then, address, eta, variance) {
      const beta = Math.max(now.sigma ** 2 - ((now.alpha * then.sigma) / then.alpha) ** 2, 0);
      const tau2 = eta ** 2 * beta * (then.sigma / now.sigma) ** 2;
      x = walk.estimate(x, now).mix(then.alpha, Math.sqrt(Math.max(then.sigma ** 2 - tau2, 0)));
      return then.sigma > 0 ? walk.noised(x, Math.sqrt(variance === "beta" ? beta : tau2), address) : x;
    }

    function* ddim(walk, {eta = 0, variance = "posterior"}) {
      let x = walk.x;
      for (const [now, then, i] of pairs(walk)) yield (x = ancestral(walk, x, now, then, i, eta, variance));
    }

    // Butcher tableaus; a step to t = 0 is taken by `last`, none of whose stages stands at its end.
    const EULER = {c: [0], a: [[]], b: [1]};
    const HEUN = {c: [0, 1], a: [[], [1]], b: [1 / 2, 1 / 2]};
    const MIDPOINT = {c: [0, 1 / 2], a: [[], [1 / 2]], b: [0, 1]};
    const RALSTON3 = {c: [0, 1 / 2, 3 / 4], a: [[], [1 / 2], [0, 3 / 4]], b: [2 / 9, 1 / 3, 4 / 9]};
    const RK4 = {c: [0, 1 / 2, 1 / 2, 1], a: [[], [1 / 2], [0, 1 / 2], [0, 0, 1]], b: [1 / 6, 1 / 3, 1 / 3, 1 / 6]};

    function advance(y, h, slopes, weights) {
      const out = Float32Array.from(y);
      weights.forEach((w, j) => {
        if (w) for (let k = 0; k < out.length; k++) out[k] += h * w * slopes[j][k];
      });
      return out;
    }

    const scaled = (x, by) => (by === 1 ? x : x.map((value) => value * by));

    const rungeKutta = (usual, last) => function* (walk, {clock = "time"}) {
      const {path} = walk.denoiser, flow = clock === "flow";
      const place = (c) => (flow ? tau(c) : c.t), size = (c) => (flow ? c.alpha + c.sigma : 1);
      const slope = (x, c) => walk.estimate(x, c).mix(...(flow ? [-1, 1] : [c.alphaDot, c.sigmaDot]));
      let x = walk.x;
      for (const [now, then] of pairs(walk)) {
        const method = then.t ? usual : last, start = place(now), h = place(then) - start;
        const y = scaled(x, 1 / size(now)), slopes = [];
        method.c.forEach((share, j) => {
          const at = start + share * h;
          const c = share === 0 ? now : share === 1 ? then : path(flow ? path.timeAt(at) : at);
          slopes.push(slope(j ? scaled(advance(y, h, slopes, method.a[j]), size(c)) : x, c));
        });
        yield (x = scaled(advance(y, h, slopes, method.b), size(then)));
      }
    };

    // x_s = (σ_s/σ_t) e^{-η²h} x_t + α_s (1 - e^{-(1+η²)h}) D + σ_s √(1 - e^{-2η²h}) z,   D = x̂₀ + (h/2h') (x̂₀ - x̂₀').
    const exponential = (order, standard) => function* (walk, {eta = standard}) {
      let x = walk.x, before = 0, x0 = null;
      for (const [now, then, i] of pairs(walk)) {
        const fall = (now.alpha * then.sigma) / (then.alpha * now.sigma), churn = fall ** (eta ** 2);
        const h = fall ? -Math.log(fall) : Infinity, gain = then.alpha * (1 - churn * fall);
        const extra = order === 2 && before && Number.isFinite(h) ? h / (2 * before) : 0;
        const previous = x0;
        x0 = walk.estimate(x, now).x0;
        const d = previous && extra ? combine(1 + extra, x0, -extra, previous) : x0;
        x = combine((then.sigma / now.sigma) * churn, x, gain, d);
        yield (x = walk.noised(x, then.sigma * Math.sqrt(Math.max(1 - churn ** 2, 0)), i));
        before = h;
      }
    };

    // x_s = α_s x̂₀ + σ_s ε̂ of the pair that leads from t to s; renew: the part of the noise that is drawn anew.
    function* jump(walk, {renew = 0}) {
      const {path} = walk.denoiser;
      let x = walk.x;
      for (const [now, then, i] of pairs(walk)) {
        const end = renew ? path(path.timeOf(Math.sqrt(1 - renew ** 2) * ratio(then))) : then;
        x = walk.estimate(x, now, end).mix(end.alpha, end.sigma);
        if (renew && then.sigma) x = walk.noised(scaled(x, then.alpha / end.alpha), renew * then.sigma, i);
        yield x;
      }
    }

    // The function, its evaluations a step and at the last, and options that the name stands for.
    const SAMPLERS = {
      euler: {walk: rungeKutta(EULER, EULER), each: 1, last: 1},
      heun: {walk: rungeKutta(HEUN, EULER), each: 2, last: 1},
      midpoint: {walk: rungeKutta(MIDPOINT, MIDPOINT), each: 2, last: 2},
      rk4: {walk: rungeKutta(RK4, RALSTON3), each: 4, last: 3},
      ddim: {walk: ddim, each: 1, last: 1},
      dpmpp_2m: {walk: exponential(2, 0), each: 1, last: 1},
      ddpm: {walk: ddim, each: 1, last: 1, given: {eta: 1}, noise: true},
      dpmpp_2m_sde: {walk: exponential(2, 1), each: 1, last: 1, noise: true},
      exponential_sde: {walk: exponential(1, 1), each: 1, last: 1, noise: true},
      jump: {walk: jump, each: 1, last: 1, spans: true},
    };

    const evaluations = (sampler, steps, guided = false) =>
      (SAMPLERS[sampler].each * (steps - 1) + SAMPLERS[sampler].last) * (guided ? 2 : 1);

    // x₁, then x after every step. start: x₁ unless it is σ(1) ε with ε of the seed. label: a class for each sample.
    function* trajectory(denoiser, {sampler, options = {}, times, n, seed = 0, first = 0, start = null, label = null,
      weight = 1, interval = [0, 1]}) {
      const {path, dim} = denoiser, ids = Array.from({length: n}, (_, i) => first + i);
      const draw = (address) => noise(seed, ids, address, dim);
      const x = start || scaled(draw(-1), path(1).sigma), row = SAMPLERS[sampler];
      yield x;
      yield* row.walk({
        denoiser, x, grid: times.map(path),
        estimate: (x, c, to = null) => denoiser.estimate(x, c, {label, to, weight, interval}),
        noised: (x, std, address) => (std ? combine(1, x, std, draw(address)) : x),
      }, {...row.given, ...options});
    }

    ebbtide.walk = {GRIDS, SAMPLERS, times, trajectory, evaluations};

    // ── A worker's side: {id, model, kind, …} in, {id, …} out; a newer walk of the same slot ends an older one ──────

    ebbtide.serve = (models, post) => {
      const denoisers = models.map(ebbtide.network.denoiser), current = {};
      const pause = () => new Promise((resume) => {
        const channel = new root.MessageChannel();
        channel.port1.onmessage = () => { channel.port1.close(); resume(); };
        channel.port2.postMessage(0);
      });
      return async ({id, slot = 0, model = 0, kind, ...asked}) => {
        const denoiser = denoisers[model];
        if (kind === "walk") {
          current[slot] = id;
          let k = 0;
          for (const x of trajectory(denoiser, asked)) {
            if (current[slot] !== id) return post({id, ended: true});
            post({id, frame: k++, x: Float32Array.from(x), last: k === asked.times.length});
            await pause();
          }
        } else if (kind === "estimate") {
          // x̂₀, and the velocity, of points at a time
          const c = denoiser.path(Math.max(asked.t, 1e-4)), found = denoiser.estimate(asked.x, c, asked);
          post({id, x0: found.x0, noise: found.noise, velocity: found.mix(c.alphaDot, c.sigmaDot), last: true});
        }
      };
    };
  }

  const root = typeof self === "undefined" ? globalThis : self;
  install(root);
  (root.ebbtide.parts = root.ebbtide.parts || []).push(install);

  // A worker made of this page's own scripts; where none can be started, the page computes by itself.
  root.ebbtide.walk.Remote = class {
    constructor(models) {
      this.waiting = new Map();
      this.count = 0;
      const heard = (message) => {
        const listener = this.waiting.get(message.id);
        if (message.last || message.ended) this.waiting.delete(message.id);
        if (listener && !message.ended) listener(message);
      };
      try {
        const parts = root.ebbtide.parts.map((part) => `(${part})(self);`).join("\n");
        const served = "self.onmessage = ({data}) => { if (data.models) serve = ebbtide.serve(data.models, " +
          "(message) => postMessage(message)); else serve(data); };";
        this.url = URL.createObjectURL(new Blob([`"use strict";\nlet serve;\n${parts}\n${served}`]));
        this.worker = new Worker(this.url);
        this.worker.onmessage = ({data}) => heard(data);
        this.worker.postMessage({models});
        this.send = (message) => this.worker.postMessage(message);
      } catch {
        this.send = root.ebbtide.serve(models, heard);
      }
    }

    // listener: called with each answer, the last one has `last`.
    ask(message, listener) {
      const id = ++this.count;
      this.waiting.set(id, listener);
      this.send({id, ...message});
      return id;
    }

    close() {
      if (this.worker) this.worker.terminate();
      if (this.url) URL.revokeObjectURL(this.url);
    }
  };
})();
