
"use strict";
// All times are nanoseconds since the timeline began, as numbers: exact for some months.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas");
  const tip = document.getElementById("tip");
  const pen = canvas.getContext("2d");
  const hues = [222, 28, 152, 268, 340, 190, 52, 300, 100, 8, 240, 130];
  const LABELS = 168, AXIS = 26, LOAD = 46, LANE = 30, GAP = 5, PAD = 12;

  // Blocks in typed arrays, with sums of the differences that were sent. A block in another's lies one level deeper.
  const sum = (list) => { let all = 0; return Float64Array.from(list, (step) => (all += step)); };
  const lanes = data.lanes.map((lane) => {
    const began = sum(lane.began), count = began.length;
    const ended = Float64Array.from(lane.ran, (ran, at) => began[at] + ran);
    const depth = new Uint8Array(count), open = [];
    let longest = 0;
    for (let at = 0; at < count; at++) {
      while (open.length && open[open.length - 1] <= began[at]) open.pop();
      depth[at] = Math.min(open.length, 5);
      open.push(ended[at]);
      longest = Math.max(longest, lane.ran[at]);
    }
    return { ...lane, began, ended, task: sum(lane.task), depth, longest, count, outcome: lane.ended };
  }).filter((lane) => lane.count || !lane.beside);
  // The program's own lane first, then each pool's workers by name.
  lanes.sort((one, other) => Number(other.beside) - Number(one.beside) || one.pool.localeCompare(other.pool) || one.name.localeCompare(other.name, "en", { numeric: true }));

  const total = lanes.reduce((all, lane) => all + lane.count, 0);
  let first = Infinity, last = 0;
  for (const lane of lanes) {
    if (lane.count) first = Math.min(first, lane.began[0]);
    for (let at = 0; at < lane.count; at++) last = Math.max(last, lane.ended[at]);
    if (lane.died) last = Math.max(last, lane.to);
  }
  if (!(first < last)) { first = 0; last = Math.max(last, 1); }
  const whole = { from: first - (last - first) * 0.01, to: last + (last - first) * 0.01 };
  let view = { ...whole };
  let chosen = -1; // a function of the legend

  const names = data.names.map((name, number) => ({ name, number, calls: 0, time: 0 }));
  let failed = 0, retried = 0, busy = 0, waits = [];
  for (const lane of lanes) {
    for (let at = 0; at < lane.count; at++) {
      const name = names[data.kinds[lane.kind[at]][0]];
      name.calls++;
      name.time += lane.ran[at];
      if (!lane.depth[at] && !lane.beside) busy += lane.ran[at];
      failed += lane.outcome[at] >= 2;
      retried += lane.outcome[at] <= -2;
      if (!lane.beside && waits.length < 200000) waits.push(lane.waited[at]);
    }
  }

  // How busy the workers were, in as many steps as are ever drawn: the time that they had, and that they used.
  const workers = lanes.filter((lane) => !lane.beside);
  const had = workers.reduce((all, lane) => all + Math.max(0, Math.min(lane.to ?? last, last) - Math.max(lane.from, first)), 0);
  const STEPS = 4096, step = (last - first) / STEPS, load = new Float64Array(STEPS);
  for (const lane of workers) {
    for (let at = 0; at < lane.count; at++) {
      if (lane.depth[at]) continue;
      const from = (lane.began[at] - first) / step, to = (lane.ended[at] - first) / step;
      const low = Math.min(STEPS - 1, Math.floor(from)), high = Math.min(STEPS - 1, Math.floor(to));
      if (low === high) { load[low] += to - from; continue; }
      load[low] += low + 1 - from;
      for (let between = low + 1; between < high; between++) load[between]++;
      load[high] += to - high;
    }
  }
  const most = Math.max(1, ...load);

  const time = (nanos) => {
    const size = Math.abs(nanos);
    const [unit, digits] = size >= 1e9 ? [1e9, "s"] : size >= 1e6 ? [1e6, "ms"] : size >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    const number = nanos / unit;
    return (Math.abs(number) >= 100 || unit === 1 ? number.toFixed(0) : number.toPrecision(3)) + " " + digits;
  };
  const count = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");
  const element = (kind, text, style) => {
    const made = document.createElement(kind);
    if (text !== undefined) made.textContent = text;
    if (style) made.className = style;
    return made;
  };

  const summary = document.getElementById("summary");
  const tell = (name, value, style) => {
    const cell = element("div");
    cell.append(element("dt", name), element("dd", value, style));
    summary.append(cell);
  };
  waits.sort((one, other) => one - other);
  tell("Calls", count(total));
  tell("Failures", count(failed), failed ? "bad" : "");
  if (retried) tell("Made again", count(retried));
  if (data.cancelled) tell("Cancelled", count(data.cancelled));
  const deaths = lanes.filter((lane) => lane.died).length;
  if (deaths) tell("Workers that died", count(deaths), "bad");
  tell("Utilisation", had ? Math.round(100 * Math.min(1, busy / had)) + " %" : "–");
  tell("Wall time", time(last - first));
  tell("Workers", count(workers.length));
  if (waits.length) tell("Median wait", time(waits[waits.length >> 1]));
  const notes = [];
  if (data.waiting) notes.push(count(data.waiting) + " calls had not begun when this was written.");
  if (data.missing) notes.push(count(data.missing) + " events are missing: they came faster than they could be kept.");
  document.getElementById("notes").textContent = notes.join(" ");
  const pools = [...new Set(workers.map((lane) => lane.pool))];
  if (pools.length) document.title = "Timeline of " + pools.join(", ");

  const legend = document.getElementById("legend");
  names.sort((one, other) => other.time - one.time);
  const order = [];
  names.forEach((name, place) => (order[name.number] = place));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name, weak) => {
    const place = order[name], hue = hues[place % hues.length];
    const light = (dark.matches ? 64 : 56) + (Math.floor(place / hues.length) % 3) * 7;
    return `hsl(${hue} ${dark.matches ? 58 : 62}% ${light}% / ${weak ? 0.22 : 1})`;
  };
  const draws = () => requestAnimationFrame(draw);
  names.forEach((name, place) => {
    const item = element("li"), box = element("i");
    box.style.background = colour(name.number);
    if (place >= 40) return;
    item.append(box, element("span", name.name), element("small", `${count(name.calls)} × ${time(name.time / Math.max(1, name.calls))} = ${time(name.time)}`));
    item.onmouseenter = () => { chosen = name.number; draws(); };
    item.onmouseleave = () => { chosen = -1; draws(); };
    legend.append(item);
  });
  if (names.length > 40) legend.append(element("li", `and ${count(names.length - 40)} others`));

  let width = 0, height = 0, ink = {}, drawn = 0, took = 0;
  const top = (row) => AXIS + LOAD + GAP + row * (LANE + GAP);
  const x = (at) => LABELS + ((at - view.from) / (view.to - view.from)) * (width - LABELS - PAD);
  const at = (x) => view.from + ((x - LABELS) / (width - LABELS - PAD)) * (view.to - view.from);

  /** The first block that may reach beyond a time: none begins earlier than the longest one lasts. */
  const from = (lane, time) => {
    let low = 0, high = lane.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane.began[middle] < time - lane.longest) low = middle + 1; else high = middle;
    }
    return low;
  };

  const resize = () => {
    const ratio = devicePixelRatio || 1;
    width = document.getElementById("chart").clientWidth;
    height = top(lanes.length) + 8;
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    for (const name of ["panel", "ink", "soft", "line", "lane", "busy", "bad", "again", "end"]) ink[name] = style.getPropertyValue("--" + name).trim();
    draw();
  };

  const shorten = (text, room) => {
    if (pen.measureText(text).width <= room) return text;
    let length = text.length;
    while (length > 1 && pen.measureText(text.slice(0, length) + "…").width > room) length--;
    return text.slice(0, length) + "…";
  };

  const axis = () => {
    const span = view.to - view.from, wanted = span / Math.max(2, (width - LABELS) / 110);
    const power = 10 ** Math.floor(Math.log10(wanted));
    const tick = [1, 2, 5, 10].map((times) => times * power).find((tick) => tick >= wanted);
    pen.textAlign = "center";
    for (let now = Math.ceil((view.from - first) / tick) * tick; now <= view.to - first; now += tick) {
      const place = Math.round(x(now + first)) + 0.5;
      if (place < LABELS || place > width - PAD) continue;
      pen.fillStyle = ink.line;
      pen.fillRect(place - 0.5, AXIS - 4, 1, height);
      pen.fillStyle = ink.soft;
      pen.fillText(Math.abs(now) < tick / 2 ? "0" : time(now), place, 12);
    }
  };

  const utilisation = () => {
    const base = AXIS + LOAD, right = width - PAD;
    pen.fillStyle = ink.lane;
    pen.fillRect(LABELS, AXIS, right - LABELS, LOAD);
    pen.fillStyle = ink.busy;
    for (let place = LABELS; place < right; place++) {
      const low = Math.max(0, (at(place) - first) / step), high = Math.min(STEPS, (at(place + 1) - first) / step);
      if (high <= 0 || low >= STEPS) continue;
      let used = 0, steps = 0;
      for (let now = Math.floor(low); now < Math.max(high, Math.floor(low) + 1) && now < STEPS; now++) { used += load[now]; steps++; }
      const tall = steps ? (used / steps / most) * (LOAD - 2) : 0;
      pen.globalAlpha = 0.75;
      pen.fillRect(place, base - tall, 1, tall);
    }
    pen.globalAlpha = 1;
    pen.textAlign = "left";
    pen.fillStyle = ink.ink;
    pen.fillText("busy workers", 14, AXIS + LOAD / 2 - 7);
    pen.fillStyle = ink.soft;
    pen.fillText("up to " + (Math.round(most * 10) / 10), 14, AXIS + LOAD / 2 + 8);
  };

  const row = (lane, number) => {
    const y = top(number), left = LABELS, right = width - PAD;
    pen.fillStyle = ink.lane;
    const birth = Math.max(left, Math.min(right, x(lane.beside ? first : lane.from)));
    const death = Math.max(birth, Math.min(right, x(lane.to ?? last)));
    pen.fillRect(birth, y, death - birth, LANE);
    // What is narrower than a pixel is gathered: how much of the pixel is covered, and mostly by which function.
    let pixel = -1, covered = 0, best = -1, mostly = -1, mark = null;
    const failures = [];
    const paint = () => {
      if (pixel < 0) return;
      pen.globalAlpha = Math.min(1, 0.25 + 0.75 * covered);
      pen.fillStyle = colour(mostly, chosen >= 0 && chosen !== mostly);
      pen.fillRect(pixel, y, 1, LANE);
      pen.globalAlpha = 1;
      if (mark) failures.push([pixel, 1, mark]);
      pixel = -1; covered = 0; best = -1; mark = null;
    };
    for (let one = from(lane, view.from); one < lane.count && lane.began[one] <= view.to; one++) {
      if (lane.ended[one] < view.from) continue;
      drawn++;
      const low = x(lane.began[one]), high = x(lane.ended[one]), name = data.kinds[lane.kind[one]][0];
      const outcome = lane.outcome[one];
      const bad = outcome >= 2 ? ink.bad : outcome <= -2 ? ink.again : null;
      if (high - low < 1) {
        const place = Math.max(left, Math.floor(low));
        if (place !== pixel) { paint(); pixel = place; }
        covered += Math.max(high - low, 0.02);
        if (high - low > best) { best = high - low; mostly = name; }
        if (bad && mark !== ink.bad) mark = bad;
        continue;
      }
      paint();
      const begin = Math.max(left, low), wide = Math.min(right, high) - begin, inset = lane.depth[one] * 4;
      if (wide <= 0) continue;
      const weak = chosen >= 0 && chosen !== name;
      pen.fillStyle = colour(name, weak);
      const slit = wide > 4 ? 1 : 0;
      if (inset) { pen.fillStyle = ink.panel; pen.fillRect(begin, y + inset - 1, wide, LANE - inset + 1); pen.fillStyle = colour(name, weak); }
      pen.fillRect(begin, y + inset, wide - slit, LANE - inset);
      if (outcome === 1) {
        pen.fillStyle = ink.panel;
        for (let stripe = begin; stripe < begin + wide; stripe += 6) pen.fillRect(stripe, y + inset, 2, LANE - inset);
      }
      if (bad) failures.push([begin, Math.max(2, wide - slit), bad]);
      if (wide > 46 && LANE - inset >= 14) {
        pen.fillStyle = weak ? ink.soft : dark.matches ? "#10131a" : "#fff";
        pen.textAlign = "left";
        pen.fillText(shorten(data.names[name].split("::").pop(), wide - 12), begin + 6, y + inset + (LANE - inset) / 2 + 1);
      }
    }
    paint();
    for (const [begin, wide, style] of failures) {
      pen.fillStyle = style;
      pen.fillRect(begin, y, Math.max(wide, 2), 4);
    }
    if (lane.to !== undefined && lane.to >= view.from && lane.to <= view.to) {
      const place = x(lane.to);
      pen.fillStyle = lane.died ? ink.bad : ink.end;
      pen.fillRect(place - 1, y, 2, LANE);
      if (lane.died) {
        pen.textAlign = "center";
        pen.font = "700 17px system-ui, sans-serif";
        pen.fillText("✕", Math.min(place + 10, right - 8), y + LANE / 2 + 1);
        pen.font = FONT;
      }
    }
    pen.fillStyle = ink.panel;
    pen.fillRect(0, y, LABELS - 1, LANE);
    pen.textAlign = "left";
    pen.fillStyle = ink.ink;
    pen.fillText(shorten(lane.name, LABELS - 26), 14, y + LANE / 2 - (lane.pid ? 6 : -1));
    if (lane.pid) { pen.fillStyle = ink.soft; pen.fillText("process " + lane.pid, 14, y + LANE / 2 + 8); }
  };

  const FONT = '12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif';
  function draw() {
    const start = performance.now();
    drawn = 0;
    pen.clearRect(0, 0, width, height);
    pen.font = FONT;
    pen.textBaseline = "middle";
    axis();
    utilisation();
    lanes.forEach(row);
    document.getElementById("range").textContent = `${time(view.to - view.from)} of ${time(whole.to - whole.from)} shown`;
    took = performance.now() - start;
  }

  const show = (low, high) => {
    const least = 100, span = Math.min(Math.max(high - low, least), whole.to - whole.from);
    const begin = Math.min(Math.max(low, whole.from), whole.to - span);
    view = { from: begin, to: begin + span };
    tip.hidden = true;
    draws();
  };
  const zoom = (middle, factor) => show(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
  const all = () => {
    view = { ...whole };
    tip.hidden = true;
    draws();
  };
  const move = (part) => show(view.from + part * (view.to - view.from), view.to + part * (view.to - view.from));

  /** The deepest block at a place, or the one that is nearest, within a few pixels. */
  const find = (px, py) => {
    const number = lanes.findIndex((_, number) => py >= top(number) && py < top(number) + LANE);
    if (number < 0 || px < LABELS) return null;
    const lane = lanes[number], low = at(px - 3), high = at(px + 3), now = at(px);
    let found = -1, off = Infinity;
    for (let one = from(lane, low); one < lane.count && lane.began[one] <= high; one++) {
      if (lane.ended[one] < low) continue;
      const away = now < lane.began[one] ? lane.began[one] - now : now > lane.ended[one] ? now - lane.ended[one] : -lane.depth[one];
      if (away <= off) { off = away; found = one; }
    }
    return found < 0 ? { lane } : { lane, one: found };
  };

  const hover = (px, py) => {
    const found = find(px, py);
    tip.hidden = true;
    if (!found) return;
    const { lane, one } = found;
    if (one === undefined) {
      if (lane.to === undefined || Math.abs(x(lane.to) - px) > 12) return;
      tip.replaceChildren(element("b", lane.end), element("div", `${lane.name}, after ${time(lane.to - first)}`, "site"));
    } else {
      const [name, site] = data.kinds[lane.kind[one]], outcome = lane.outcome[one];
      const table = element("table");
      const line = (name, value) => {
        const cells = element("tr");
        cells.append(element("td", name), element("td", value));
        table.append(cells);
      };
      if (lane.task[one]) line("task", count(lane.task[one]));
      line("began", "at " + time(lane.began[one] - first));
      if (lane.task[one]) line("waited", time(lane.waited[one]));
      line("ran", time(lane.ran[one]));
      line("outcome", outcome === 0 ? "done" : outcome === 1 ? "still running" : outcome > 0 ? "failed" : "failed, and was made again");
      tip.replaceChildren(element("b", data.names[name]), element("div", "submitted at " + site, "site"), table);
      if (Math.abs(outcome) >= 2) tip.append(element("div", data.errors[Math.abs(outcome) - 2], "error"));
    }
    tip.hidden = false;
    const box = document.getElementById("chart").getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(px + 14, box.width - tip.offsetWidth - 6)) + "px";
    tip.style.top = Math.max(4, py + 18 + tip.offsetHeight > box.height ? py - tip.offsetHeight - 12 : py + 18) + "px";
  };

  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return move(event.deltaX / (width - LABELS));
    zoom(at(Math.max(event.offsetX, LABELS)), Math.exp(Math.max(-1, Math.min(1, event.deltaY / 240))));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, view: { ...view } };
    canvas.classList.add("dragged");
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return hover(event.offsetX, event.offsetY);
    const by = ((drag.x - event.offsetX) / (width - LABELS - PAD)) * (drag.view.to - drag.view.from);
    show(drag.view.from + by, drag.view.to + by);
  });
  const release = () => { drag = null; canvas.classList.remove("dragged"); };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", all);
  document.getElementById("reset").onclick = all;
  document.getElementById("chart").addEventListener("keydown", (event) => {
    const middle = (view.from + view.to) / 2;
    const does = {
      "+": () => zoom(middle, 0.6), "=": () => zoom(middle, 0.6), "-": () => zoom(middle, 1 / 0.6),
      ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), 0: all,
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  addEventListener("resize", resize);
  dark.addEventListener("change", () => {
    [...legend.querySelectorAll("i")].forEach((box, place) => (box.style.background = colour(names[place].number)));
    resize();
  });
  resize();

  // For tests: what is shown, and what it took to draw it.
  window.timeline = {
    lanes, total, x, top, LANE, draw,
    get view() { return { ...view }; }, get drawn() { return drawn; }, get took() { return took; },
  };
})();
