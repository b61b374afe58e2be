// A grid of many cards, of which only those on the screen exist. The window scrolls; arrow keys move.

import { h } from "./dom.js";

const SPARE_ROWS = 2;
const GAP = 12;

/**
 * @typedef {object} GridOptions
 * @property {number} length
 * @property {string} label  For screen readers.
 * @property {string} [kind]  A class for the style sheet, which sets the size of the cards.
 * @property {(place: number) => HTMLElement} card  A link.
 * @property {(place: number) => void} [gone]  Called when a card leaves the screen.
 */

/**
 * Return a grid; call `mounted` when it is on the page, and `dispose` when it leaves.
 * @param {GridOptions} options
 * @returns {{node: HTMLElement, mounted: () => void, dispose: () => void}}
 */
export function createGrid({ length, label, kind = "", card, gone = () => {} }) {
  const node = h("div", { class: `grid ${kind}`, role: "list", "aria-label": label });
  /** @type {Map<number, HTMLElement>} */
  const shown = new Map();
  let columns = 0;
  let rowHeight = 0;
  let cardWidth = 0;
  let active = 0;
  let frame = 0;

  function measure() {
    const style = getComputedStyle(node);
    const wanted = Number(style.getPropertyValue("--card-width")) || 180;
    const height = Number(style.getPropertyValue("--card-height")) || 250;
    const width = node.clientWidth;
    if (!width) return;
    const fitting = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
    cardWidth = (width - GAP * (fitting - 1)) / fitting;
    rowHeight = height + GAP;
    if (fitting !== columns) {
      columns = fitting;
      clear();
    }
    node.style.height = `${Math.max(0, Math.ceil(length / columns) * rowHeight - GAP)}px`;
    update();
  }

  function update() {
    frame = 0;
    if (!columns || !node.isConnected) return;
    const top = node.getBoundingClientRect().top;
    const firstRow = Math.max(0, Math.floor(-top / rowHeight) - SPARE_ROWS);
    const lastRow = Math.ceil((innerHeight - top) / rowHeight) + SPARE_ROWS;
    const first = firstRow * columns;
    const stop = Math.min(length, Math.max(first, lastRow * columns));
    for (const [place, element] of shown) {
      if (place >= first && place < stop) continue;
      if (element.contains(document.activeElement)) continue; // the focus must not be lost
      element.remove();
      shown.delete(place);
      gone(place);
    }
    for (let place = first; place < stop; place += 1) if (!shown.has(place)) add(place);
  }

  /** @param {number} place */
  function add(place) {
    const inner = card(place);
    inner.tabIndex = place === active ? 0 : -1;
    const element = h(
      "div",
      { role: "listitem", class: "cell", "aria-setsize": length, "aria-posinset": place + 1 },
      inner,
    );
    const row = Math.floor(place / columns);
    const column = place % columns;
    element.style.width = `${cardWidth}px`;
    element.style.height = `${rowHeight - GAP}px`;
    element.style.transform = `translate(${column * (cardWidth + GAP)}px, ${row * rowHeight}px)`;
    const next = [...shown.keys()].filter((other) => other > place).sort((a, b) => a - b)[0]; // reading order
    node.insertBefore(element, next === undefined ? null : /** @type {HTMLElement} */ (shown.get(next)));
    shown.set(place, element);
  }

  function clear() {
    for (const [place, element] of shown) {
      element.remove();
      gone(place);
    }
    shown.clear();
  }

  /** @param {number} place */
  function move(place) {
    const before = shown.get(active)?.firstElementChild;
    if (before instanceof HTMLElement) before.tabIndex = -1;
    active = Math.max(0, Math.min(length - 1, place));
    const top = node.getBoundingClientRect().top + scrollY + Math.floor(active / columns) * rowHeight;
    const header = document.querySelector(".bar")?.getBoundingClientRect().height ?? 0;
    if (top - scrollY < header) scrollTo(0, top - header - GAP);
    else if (top + rowHeight > scrollY + innerHeight) scrollTo(0, top + rowHeight - innerHeight + GAP);
    update();
    const inner = shown.get(active)?.firstElementChild;
    if (inner instanceof HTMLElement) {
      inner.tabIndex = 0;
      inner.focus({ preventScroll: true });
    }
  }

  node.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(innerHeight / rowHeight) - 1) * columns;
    /** @type {Record<string, number>} */
    const moves = {
      ArrowRight: active + 1,
      ArrowLeft: active - 1,
      ArrowDown: active + columns < length ? active + columns : active,
      ArrowUp: active - columns >= 0 ? active - columns : active,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: length - 1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    move(moves[event.key]);
  });
  node.addEventListener("focusin", (event) => {
    for (const [place, element] of shown) if (element.contains(/** @type {Node} */ (event.target))) active = place;
  });

  const soon = () => {
    frame ||= requestAnimationFrame(update);
  };
  const observer = new ResizeObserver(measure);
  observer.observe(node);
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", soon);
  return {
    node,
    mounted: measure,
    dispose() {
      observer.disconnect();
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
      cancelAnimationFrame(frame);
      clear();
    },
  };
}
