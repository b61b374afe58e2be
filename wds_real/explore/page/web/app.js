// The entry: reads the data, makes the header and the dialogs, and shows the view that the address names.

import { Numbers } from "./data/numbers.js";
import { formatRoute, parseRoute, thresholdOf, thresholdText } from "./data/route.js";
import { readTable } from "./data/table.js";
import { Images } from "./images/loader.js";
import { h, visible } from "./ui/dom.js";
import { createHeader } from "./ui/header.js";
import { createHelp, listenForKeys } from "./ui/keys.js";
import { createShards } from "./ui/shards.js";
import { classView, classesView, notFound, pairView } from "./views/classes.js";
import { compareView } from "./views/compare.js";
import { imageView } from "./views/image.js";
import { imagesView } from "./views/images.js";
import { modelView } from "./views/model.js";
import { modelsView } from "./views/models.js";
import { overviewView } from "./views/overview.js";

/**
 * @typedef {import("./ui/parts.js").Context} Context
 * @typedef {import("./ui/parts.js").View} View
 */

/** @type {Record<string, (context: Context) => View>} */
const VIEWS = {
  "": overviewView,
  images: imagesView,
  image: imageView,
  classes: classesView,
  class: classView,
  pair: pairView,
  models: modelsView,
  model: modelView,
  compare: compareView,
};
const WRITE_ADDRESS_MS = 200;

start().catch((error) => {
  document.querySelector("#app")?.replaceChildren(
    h("p", { class: "loading", role: "alert" }, `This page cannot be read: ${String(error)}. Make it again with wds-real explore.`),
  );
});

async function start() {
  const block = /** @type {HTMLElement} */ (document.querySelector("#data"));
  const table = await readTable(block.textContent ?? "");
  block.remove(); // frees the memory of the text
  history.scrollRestoration = "manual";

  let route = parseRoute(location.hash);
  let numbers = new Numbers(table, thresholdOf(route.query, table));
  /** @type {View | null} */
  let view = null;
  let timer = 0;
  let shown = location.hash; // the address that `route` was read from

  const main = h("main", { id: "main", tabindex: "-1" });
  const images = new Images(table, (error) => shards.failed(error));
  const shards = createShards(table, images, () => render());
  const help = createHelp();
  const header = createHeader(table, { onThreshold: setThreshold, onShards: table.places ? () => shards.open() : null, onHelp: () => help.showModal(), to });
  document.querySelector("#app")?.replaceChildren(
    h("a", { class: "skip", href: "#main", onclick: skip }, "Skip to the content"),
    header.node,
    shards.notice,
    main,
    shards.dialog,
    help,
  );
  listenForKeys({ step: setThreshold, threshold: () => numbers.threshold, search: header.search, help });
  addEventListener("hashchange", follow);
  addEventListener("scroll", remember, { passive: true });
  render();
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");

  /** @param {(string | number)[]} path @param {Record<string, any>} [query] */
  function to(path, query = {}) {
    return formatRoute(path, { ...query, t: thresholdText(numbers.threshold, table) });
  }

  /** @param {number | null} threshold */
  function setThreshold(threshold) {
    if (threshold === numbers.threshold || !table.hasThresholds) return;
    numbers = new Numbers(table, threshold, numbers);
    route = { ...route, query: { ...route.query, t: thresholdText(threshold, table) ?? "" } };
    if (!route.query.t) delete route.query.t;
    render();
    rememberSoon();
  }

  function follow() {
    const before = route;
    shown = location.hash;
    route = parseRoute(shown);
    const threshold = thresholdOf(route.query, table);
    if (threshold !== numbers.threshold) numbers = new Numbers(table, threshold, numbers);
    const isSame = before.path.join("/") === route.path.join("/");
    render();
    const seen = history.state?.y;
    if (seen !== undefined) scrollTo(0, seen);
    else if (!isSame) {
      scrollTo(0, 0);
      /** @type {HTMLElement | null} */ (main.querySelector("h1"))?.focus({ preventScroll: true });
    }
  }

  function remember() {
    if (!timer) rememberSoon();
  }

  /** Write the threshold and the place on the page into the address, not more often than browsers allow. */
  function rememberSoon() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = 0;
      if (location.hash !== shown) return; // a link was followed, and its hashchange event follows
      history.replaceState({ y: scrollY }, "", formatRoute(route.path, route.query));
      shown = location.hash;
    }, WRITE_ADDRESS_MS);
  }

  function render() {
    const active = document.activeElement;
    const id = active && main.contains(active) ? active.id : "";
    const context = { table, numbers, route, images, to };
    view?.dispose?.();
    const make = VIEWS[route.path[0] ?? ""] ?? (() => notFound("Page", `There is no view ${route.path[0]}.`));
    view = make(context);
    main.replaceChildren(view.node);
    view.mounted?.();
    document.title = `${visible(view.title)} – wds-real explorer`;
    header.update(route, numbers.threshold);
    const again = id ? document.getElementById(id) : null; // the same control in the new view
    if (again) again.focus({ preventScroll: true });
  }

  /**
   * Move the focus to the content; the address must stay a route.
   * @param {Event} event
   */
  function skip(event) {
    event.preventDefault();
    main.focus();
  }
}
