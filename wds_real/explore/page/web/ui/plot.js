// The plot of original against ReaL accuracy: a point for each model, and a line for the original labels as predictions.

import { fixed, percent, share, wilson } from "../data/statistics.js";
import { h, svg } from "./dom.js";

/**
 * @typedef {import("../data/outcomes.js").Accuracy} Accuracy
 * @typedef {{name: string, href: string, original: Accuracy, real: Accuracy}} Point
 */

const WIDTH = 640;
const HEIGHT = 420;
const MARGIN = { left: 56, right: 24, top: 16, bottom: 48 };
const LABEL_HEIGHT = 13;

/**
 * @param {Point[]} points
 * @param {Accuracy} labels  Of the original labels, scored by ReaL.
 * @returns {HTMLElement}
 */
export function accuracyPlot(points, labels) {
  const known = points.filter(({ original, real }) => original.total && real.total);
  const x = axis(known.flatMap(({ original }) => wilson(original)), MARGIN.left, WIDTH - MARGIN.right);
  const y = axis([...known.flatMap(({ real }) => wilson(real)), share(labels)].filter((value) => !Number.isNaN(value)), HEIGHT - MARGIN.bottom, MARGIN.top);
  const places = known.map((point) => ({ point, x: x.place(share(point.original)), y: y.place(share(point.real)) }));
  const names = placedLabels(places);
  const title = "Original top-1 accuracy against ReaL top-1 accuracy, one point for each model";
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "group", "aria-label": title },
    x.ticks.map((tick) => svg("g", {},
      svg("line", { class: "rule", x1: x.place(tick), x2: x.place(tick), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      svg("text", { x: x.place(tick), y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, tickText(tick, x.step)),
    )),
    y.ticks.map((tick) => svg("g", {},
      svg("line", { class: "rule", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y.place(tick), y2: y.place(tick) }),
      svg("text", { x: MARGIN.left - 8, y: y.place(tick) + 4, "text-anchor": "end" }, tickText(tick, y.step)),
    )),
    diagonal(x, y),
    labels.total > 0 && svg("g", {},
      svg("line", { class: "ceiling", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y.place(share(labels)), y2: y.place(share(labels)) }),
      svg("text", { x: MARGIN.left + 6, y: y.place(share(labels)) - 6, class: "ceiling-text" }, `the original labels: ${percent(share(labels), 2)}`),
    ),
    svg("text", { x: (MARGIN.left + WIDTH - MARGIN.right) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "axis" }, "original top-1, %"),
    svg("text", { x: 0, y: 0, transform: `translate(14 ${(MARGIN.top + HEIGHT - MARGIN.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, "ReaL top-1, %"),
    places.map(({ point, x: left, y: top }, place) => pointOf(point, left, top, x, y, names[place])),
  );
  return h(
    "figure",
    {},
    h("div", { class: "plot-scroller" }, drawing),
    h(
      "figcaption",
      {},
      "Crosses are 95 % intervals. Above the dashed line a model is better by ReaL than by the original labels. The orange " +
        "line is what the original labels would score by ReaL if a model had given them.",
    ),
  );
}

/**
 * @param {Point} point @param {number} left @param {number} top @param {Axis} x @param {Axis} y
 * @param {{x: number, y: number, anchor: string}} label
 */
function pointOf(point, left, top, x, y, label) {
  const [lowX, highX] = wilson(point.original).map(x.place);
  const [lowY, highY] = wilson(point.real).map(y.place);
  const parts = [
    svg("title", {}, `${point.name}: original ${percent(share(point.original))} %, ReaL ${percent(share(point.real))} %`),
    svg("line", { class: "whisker", x1: lowX, x2: highX, y1: top, y2: top }),
    svg("line", { class: "whisker", x1: left, x2: left, y1: lowY, y2: highY }),
    svg("circle", { class: "dot", cx: left, cy: top, r: 5 }),
    svg("text", { class: "name", x: label.x, y: label.y, "text-anchor": label.anchor }, point.name.slice(0, 30)),
  ];
  const name = `${point.name}: original ${percent(share(point.original))} percent, ReaL ${percent(share(point.real))} percent`;
  return svg("a", { href: point.href, "aria-label": name }, parts);
}

/** @typedef {{place: (value: number) => number, ticks: number[], step: number, low: number, high: number}} Axis */

/** @param {number[]} values @param {number} from @param {number} to @returns {Axis} */
function axis(values, from, to) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  const room = Math.max(0.005, (high - low) * 0.04);
  [low, high] = [Math.max(0, low - room), Math.min(1, high + room)];
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((width) => (high - low) / width <= 7) ?? 0.2;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k += 1) ticks.push(k * step);
  return { low, high, step, ticks, place: (value) => from + ((value - low) / (high - low)) * (to - from) };
}

/** @param {number} tick @param {number} step @returns {string} */
function tickText(tick, step) {
  return fixed(100 * tick, step < 0.01 ? 1 : 0);
}

/** @param {Axis} x @param {Axis} y */
function diagonal(x, y) {
  const low = Math.max(x.low, y.low);
  const high = Math.min(x.high, y.high);
  if (low >= high) return null;
  return svg("line", { class: "diagonal", x1: x.place(low), y1: y.place(low), x2: x.place(high), y2: y.place(high) });
}

/**
 * Put each name beside its point where no other name is, as far as there is room.
 * @param {{point: Point, x: number, y: number}[]} places
 * @returns {{x: number, y: number, anchor: string}[]}
 */
function placedLabels(places) {
  /** @type {{left: number, right: number, y: number}[]} */
  const taken = places.map(({ x, y }) => ({ left: x - 6, right: x + 6, y: y + 4 }));
  return places.map(({ point, x, y }) => {
    const width = 7 * Math.min(30, point.name.length);
    const sides = x + width + 12 > WIDTH - MARGIN.right ? ["end", "start"] : ["start", "end"];
    for (const shift of [4, 18, -10, 32, -24, 46, -38]) {
      for (const anchor of sides) {
        const left = anchor === "start" ? x + 10 : x - 10 - width;
        const box = { left, right: left + width, y: y + shift };
        const free = taken.every((other) => other.right < box.left || other.left > box.right || Math.abs(other.y - box.y) >= LABEL_HEIGHT);
        if (free && left > MARGIN.left && box.right < WIDTH) {
          taken.push(box);
          return { x: anchor === "start" ? x + 10 : x - 10, y: y + shift, anchor };
        }
      }
    }
    return { x: x + 10, y: y + 4, anchor: "start" };
  });
}
