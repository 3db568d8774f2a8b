"use strict";
// The timeline. All times are nanoseconds since the start of the run; `view` is the part that is shown.
const data = JSON.parse(document.getElementById("data").textContent);
const SHORTEST = 200, LISTED = 200, HEIGHT = 94;
const LANES = {interrupts: [6, 20], slices: [28, 30], points: [61, 14], lines: [77, 14]};  // top and height
const view = {from: 0, to: Math.max(data.end, SHORTEST)};
const axis = document.getElementById("axis"), tip = document.getElementById("tip");
const list = document.getElementById("list");

const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name);
const ms = (ns, digits = 3) => (ns / 1e6).toFixed(digits);
const length = ns => ns >= 1e6 ? ms(ns) + " ms" : (ns / 1e3).toFixed(1) + " \u00b5s";

// Index of the first of `items` whose time is at least `time`.
function firstFrom(items, time, timeOf) {
  let low = 0, high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(items[middle]) < time) low = middle + 1; else high = middle;
  }
  return low;
}

const sliceEnd = slice => slice[0] + slice[1];
const interruptSpan = interrupt => interrupt.slice(4);
const pointText = ([, kind, text]) => (kind === "line" ? "prints: " : "") + text;

// What of a row is in view.
function visible(row) {
  const inView = (from, to) => to >= view.from && from <= view.to;
  const slices = [];
  for (let i = firstFrom(row.slices, view.from, sliceEnd); i < row.slices.length && row.slices[i][0] <= view.to; i++)
    slices.push(row.slices[i]);
  return {slices, points: row.points.filter(point => inView(point[0], point[0])),
          interrupts: row.interrupts.filter(interrupt => inView(...interruptSpan(interrupt)))};
}

function describe(slice) {
  const [kind, name] = data.names[slice[2]];
  const rip = slice[3] ? `, rip 0x${slice[3].toString(16)}` : "";
  return (kind === "exit" ? `${name}${rip}: handled in ` : `${name}: `) + length(slice[1]);
}

function describeInterrupt([vector, raised, injected, entered]) {
  const steps = [`interrupt 0x${vector.toString(16)}`];
  steps.push(raised < 0 ? "not seen when it was raised" : `raised at ${ms(raised)} ms`);
  steps.push(injected < 0 ? "not injected" :
             "injected" + (raised < 0 ? "" : ` ${length(injected - raised)} later`));
  if (injected >= 0) steps.push(entered < 0 ? "the guest was not entered with it" :
                                `its handler starts ${length(entered - injected)} after that`);
  return steps.join(", ");
}

// Prepares a canvas for its size on the screen; returns what draws on it, and where a time is.
function canvasOf(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return [pen, time => (time - view.from) / (view.to - view.from) * width, width];
}

function drawAxis() {
  const [pen, at, width] = canvasOf(axis, 22);
  const rough = (view.to - view.from) / Math.max(2, width / 130);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(factor => factor * power >= rough) * power;
  pen.fillStyle = color("faint");
  pen.font = "12px system-ui, sans-serif";
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    pen.fillRect(at(time), 16, 1, 6);
    pen.fillText(ms(time, Math.max(0, Math.ceil(6 - Math.log10(step)))) + " ms", at(time) + 3, 14);
  }
}

function drawRow(row) {
  const [pen, at, width] = canvasOf(row.canvas, HEIGHT), shown = visible(row);
  const bar = (from, to, [top, height], least) => {
    const left = Math.max(at(from), -1), right = Math.min(at(to), width + 1);
    pen.fillRect(left, top, Math.max(right - left, least), height);
  };
  for (const slice of shown.slices) {
    pen.fillStyle = colors[data.names[slice[2]][0]];
    bar(slice[0], sliceEnd(slice), LANES.slices, 0.2);
  }
  for (const interrupt of shown.interrupts) {
    const [, raised, injected] = interrupt, [start, end] = interruptSpan(interrupt);
    pen.fillStyle = colors.pending;
    if (raised >= 0) bar(start, injected < 0 ? end : injected, LANES.interrupts, 1);
    pen.fillStyle = colors.injected;
    if (injected >= 0) bar(injected, end, LANES.interrupts, 1.5);
    if (injected >= 0) pen.fillRect(at(end) - 0.75, LANES.interrupts[0], 1.5, 24);
  }
  pen.fillStyle = colors.text;
  pen.font = "12px system-ui, sans-serif";
  let free = -Infinity;
  for (const [time, kind, text] of shown.points) {
    const x = at(time), [top, height] = LANES[kind === "line" ? "lines" : "points"];
    if (kind === "kick") pen.fillText("\u25bc", x - 5, top + 12); else pen.fillRect(x, top, 1, height);
    if (kind === "line" && x > free) {  // where there is room
      const words = text.slice(0, 40);
      pen.fillText(words, x + 3, top + 11);
      free = x + 8 + pen.measureText(words).width;
    }
  }
}

const colors = {};
let waiting = false;
function draw() {
  waiting = false;
  for (const name of ["guest", "exit", "halted", "vmm", "pending", "injected", "text"]) colors[name] = color(name);
  drawAxis();
  data.rows.forEach(drawRow);
  document.getElementById("range").textContent =
    `${ms(view.from)} to ${ms(view.to)} ms of ${ms(data.end)} ms`;
  if (list.open) drawList();
}

function drawList() {
  const lines = [];
  for (const row of data.rows) {
    const shown = visible(row);
    shown.slices.forEach(slice => lines.push([slice[0], row.name, describe(slice)]));
    shown.points.forEach(point => lines.push([point[0], row.name, pointText(point)]));
    shown.interrupts.forEach(interrupt => lines.push([interruptSpan(interrupt)[0], row.name,
                                                      describeInterrupt(interrupt)]));
  }
  lines.sort((one, other) => one[0] - other[0]);
  const cells = lines.slice(0, LISTED).map(([time, name, text]) => [ms(time), name, text]);
  if (lines.length > LISTED) cells.push(["", "", `and ${lines.length - LISTED} more: zoom in`]);
  list.querySelector("tbody").replaceChildren(...cells.map(texts => {
    const line = document.createElement("tr");
    line.append(...texts.map(text => Object.assign(document.createElement("td"), {textContent: text})));
    return line;
  }));
}

function show(from, to) {
  const whole = Math.max(data.end, SHORTEST), span = Math.min(Math.max(to - from, SHORTEST), whole);
  view.from = Math.min(Math.max(from, 0), whole - span);
  view.to = view.from + span;
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

// Makes the view `factor` times as long; the time at `part` of it (0 left, 1 right) stays where it is.
function zoom(factor, part = 0.5) {
  const span = view.to - view.from, fixed = view.from + part * span;
  const wanted = Math.min(Math.max(span * factor, SHORTEST), Math.max(data.end, SHORTEST));
  show(fixed - part * wanted, fixed - part * wanted + wanted);
}

const move = part => show(view.from + part * (view.to - view.from), view.to + part * (view.to - view.from));
const actions = {in: () => zoom(0.5), out: () => zoom(2), left: () => move(-0.25), right: () => move(0.25),
                 all: () => show(0, data.end)};
const keys = {"+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", "0": "all"};

document.getElementById("controls").addEventListener("click", event => actions[event.target.dataset.do]?.());
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  actions[keys[event.key]]();
  event.preventDefault();
});

// What is under the pointer: a point, then an interrupt, then a slice.
function under(row, x, y, width) {
  const time = view.from + x / width * (view.to - view.from), near = 5 / width * (view.to - view.from);
  const {slices, points, interrupts} = visible(row);
  if (y >= LANES.points[0])
    return points.filter(point => Math.abs(point[0] - time) <= near && (point[1] === "line") === (y >= LANES.lines[0]))
      .map(point => `${ms(point[0])} ms: ${pointText(point)}`);
  if (y < LANES.slices[0])
    return interrupts.filter(interrupt => {
      const [from, to] = interruptSpan(interrupt);
      return time >= from - near && time <= to + near;
    }).map(describeInterrupt);
  return slices.filter(slice => time >= slice[0] && time <= sliceEnd(slice))
    .map(slice => `${ms(slice[0])} ms: ${describe(slice)}`);
}

function point(row, event) {
  const box = row.canvas.getBoundingClientRect();
  const texts = under(row, event.clientX - box.left, event.clientY - box.top, box.width).slice(0, 8);
  tip.hidden = texts.length === 0;
  tip.textContent = texts.join("\n");
  tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = event.clientY + 16 + "px";
}

function addRow(row) {
  const section = document.createElement("section"), title = document.createElement("h3");
  section.className = "row";
  title.append(row.name + " ", Object.assign(document.createElement("small"), {textContent: row.guest}));
  row.canvas = document.createElement("canvas");
  section.append(title, row.canvas);
  document.getElementById("rows").append(section);
  let grabbed = null;
  row.canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const box = row.canvas.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, (event.clientX - box.left) / box.width);
  }, {passive: false});
  row.canvas.addEventListener("pointerdown", event => {
    grabbed = {x: event.clientX, from: view.from, to: view.to};
    row.canvas.setPointerCapture(event.pointerId);
  });
  row.canvas.addEventListener("pointerup", () => { grabbed = null; });
  row.canvas.addEventListener("pointermove", event => {
    if (grabbed) {
      const moved = (grabbed.x - event.clientX) / row.canvas.clientWidth * (grabbed.to - grabbed.from);
      show(grabbed.from + moved, grabbed.to + moved);
    }
    point(row, event);
  });
  row.canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
}

data.rows.forEach(addRow);
list.addEventListener("toggle", draw);
window.addEventListener("resize", () => show(view.from, view.to));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
