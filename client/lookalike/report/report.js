"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const groups = data.groups;
  if (!groups.length) return;

  const FIRST_SHOWN = 24, MORE_SHOWN = 96; // photos of one group on the page
  const byId = (id) => document.getElementById(id);
  const list = byId("groups");
  const whole = new Intl.NumberFormat("en");

  // ---- what is shown, as text ----------------------------------------------------------------------------
  function size(bytes) {
    if (bytes === undefined) return "";
    const units = ["B", "kB", "MB", "GB", "TB"];
    let amount = bytes, unit = 0;
    while (amount >= 999.5 && unit < units.length - 1) { amount /= 1000; unit += 1; }
    return (unit && amount < 9.95 ? amount.toFixed(1) : whole.format(Math.round(amount))) + " " + units[unit];
  }
  const name = (photo) => (photo.path ?? photo.id).split(/[\\/]/).pop() || photo.id;
  const folder = (photo) => (photo.path ?? "").split(/[\\/]/).slice(0, -1).join("/");
  const pixels = (photo) => (photo.width && photo.height ? `${photo.width} × ${photo.height}` : "");
  const day = (photo) => (photo.modified ? photo.modified.slice(0, 10) : "");
  const moment = (photo) => (photo.modified ? photo.modified.slice(0, 16).replace("T", " ") + " UTC" : "");
  const isNear = (photo) => !photo.identical && !photo.same_pixels;
  const count = (n, one, many = one + "s") => `${whole.format(n)} ${n === 1 ? one : many}`;
  function similarity(photo) { // never rounded up to 1: that is for equals
    const shown = Math.floor(photo.similarity * 1000 + 1e-6) / 1000;
    return shown.toFixed(3);
  }

  // ---- marks: what to do with each photo; only what differs from the proposal is remembered ------------------
  const shelf = "lookalike " + data.created;
  const changed = new Map();
  try {
    for (const [key, action] of JSON.parse(localStorage.getItem(shelf) ?? "[]")) changed.set(key, action);
  } catch { /* a browser that keeps nothing for files: the marks live as long as the page */ }

  const proposed = (place) => (place === 0 ? "keep" : "move");
  const action = (g, place) => changed.get(`${g}.${place}`) ?? proposed(place);
  function setAction(g, place, wanted) {
    if (groups[g][place].protected) return; // of the reference: it stays where it is
    if (wanted === proposed(place)) changed.delete(`${g}.${place}`);
    else changed.set(`${g}.${place}`, wanted);
  }
  function remember() {
    try { localStorage.setItem(shelf, JSON.stringify([...changed])); } catch { /* as above */ }
    showPlan();
  }
  const isChanged = (g) => groups[g].some((_, place) => changed.has(`${g}.${place}`));

  function showPlan() {
    let photos = 0, bytes = 0;
    groups.forEach((group, g) => group.forEach((photo, place) => {
      if (action(g, place) === "move") { photos += 1; bytes += photo.bytes ?? 0; }
    }));
    byId("plan").textContent = `${count(photos, "photo")} to move, ${size(bytes)}`;
  }

  // ---- building -------------------------------------------------------------------------------------------
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("aria-") || key === "role" || key === "loading") element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  }

  // Thumbnails stand at the end of the file, so the first groups may be asked for before they are here.
  const SAME = "=", MISSING = "-", ON_DISK = "~";
  function thumbnail(g, place) {
    const text = byId("t" + g)?.textContent;
    if (!text) return null;
    const words = text.split(" ");
    const word = words[place] === SAME ? words[0] : words[place];
    if (word === MISSING) return "";
    return word === ON_DISK ? groups[g][place].uri ?? "" : "data:image/jpeg;base64," + word;
  }

  function picture(g, place, photo) {
    const source = thumbnail(g, place);
    if (source === null) return make("span", { className: "later" });
    const gone = () => make("span", { className: "gone" }, "No picture: the file has gone or cannot be read");
    if (!source) return gone();
    const image = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
    image.addEventListener("error", () => image.replaceWith(gone()));
    image.src = source;
    return image;
  }

  function badges(photo, place) {
    const shown = make("span", { className: "badges" });
    if (place === 0) shown.append(make("span", { className: "badge best" }, "Best"));
    else if (photo.identical) shown.append(make("span", { className: "badge identical" }, "Identical"));
    else if (photo.same_pixels) shown.append(make("span", { className: "badge identical", title: "Another file with the same pixels" }, "Same pixels"));
    else shown.append(make("span", { className: "badge", title: "Similarity to the best photo" }, similarity(photo)));
    return shown;
  }

  function photoItem(g, place) {
    const photo = groups[g][place];
    const frame = make("button", { type: "button", className: "frame", tabIndex: -1, title: "Compare (Enter)" },
      picture(g, place, photo), badges(photo, place));
    frame.setAttribute("aria-label", `Compare ${name(photo)}`);
    frame.addEventListener("click", () => openCompare(g, place));
    const mark = make("button", { type: "button", className: "mark", tabIndex: -1 });
    mark.addEventListener("click", () => toggle(g, place));
    const title = photo.uri
      ? make("a", { className: "name", href: photo.uri, target: "_blank", rel: "noopener", tabIndex: -1 }, name(photo))
      : make("span", { className: "name" }, name(photo));
    title.title = photo.path ?? photo.id;
    const where = make("span", { className: "folder", title: folder(photo) }, make("bdi", {}, folder(photo)));
    const facts = make("span", { className: "data" }, [pixels(photo), size(photo.bytes), day(photo)].filter(Boolean).join(" · "));
    const item = make("li", { className: "photo", tabIndex: -1 },
      frame, make("div", { className: "caption" }, title, mark, where, facts));
    item.dataset.place = place;
    item.addEventListener("focus", () => rove(item));
    return item;
  }

  function showMark(item, g) {
    const place = Number(item.dataset.place), photo = groups[g][place], now = action(g, place);
    const mark = item.querySelector(".mark");
    item.classList.toggle("keep", now === "keep");
    item.classList.toggle("move", now === "move");
    mark.className = "mark " + now;
    mark.textContent = now === "keep" ? "Keep" : "Move";
    mark.setAttribute("aria-label", `${name(photo)}: ${now === "keep" ? "kept" : "moved away"}; change`);
    const kind = place === 0 ? "best of its group" : photo.identical ? "identical" : photo.same_pixels ? "same pixels" : `similarity ${similarity(photo)}`;
    item.setAttribute("aria-label", `${name(photo)}, ${kind}, ${now === "keep" ? "keep" : "move away"}`);
  }

  function describe(g) {
    const group = groups[g], others = group.slice(1);
    const identical = others.filter((photo) => photo.identical).length;
    const same = others.filter((photo) => !photo.identical && photo.same_pixels).length;
    const near = others.filter(isNear);
    const bytes = group.reduce((sum, photo, place) => sum + (action(g, place) === "move" ? photo.bytes ?? 0 : 0), 0);
    const parts = [];
    if (identical) parts.push(count(identical, "identical copy", "identical copies"));
    if (same) parts.push(`${whole.format(same)} with the same pixels`);
    if (near.length) {
      const low = similarity(near[near.length - 1]), high = similarity(near[0]);
      parts.push(`${count(near.length, "near copy", "near copies")}, similarity ${low === high ? low : `${low}–${high}`}`);
    }
    if (bytes) parts.push(`${size(bytes)} to free`);
    return parts.join(" · ");
  }

  function showNotes(section, g) {
    section.querySelector(".note").textContent = describe(g);
    const nothingKept = groups[g].every((_, place) => action(g, place) === "move");
    section.querySelector(".note.alert").textContent = nothingKept ? "Nothing of this group is kept" : "";
    section.querySelector("header button").textContent = isChanged(g) ? "As proposed" : "Keep all";
  }

  function showMarks(g) {
    const section = sections[g];
    if (!section.firstChild) return;
    for (const item of section.querySelectorAll(".photo")) showMark(item, g);
    showNotes(section, g);
  }

  function addPhotos(section, g, upTo) {
    const photos = section.querySelector(".photos");
    for (let place = photos.children.length; place < Math.min(upTo, groups[g].length); place += 1) {
      const item = photoItem(g, place);
      showMark(item, g);
      photos.append(item);
    }
    section.querySelector(".more")?.remove();
    const left = groups[g].length - photos.children.length;
    if (!left) return;
    const more = make("button", { type: "button", className: "more" }, `Show ${whole.format(Math.min(left, MORE_SHOWN))} more of ${whole.format(left)}`);
    more.addEventListener("click", () => {
      const first = photos.children.length;
      addPhotos(section, g, first + MORE_SHOWN);
      photos.children[first].focus();
    });
    section.append(more);
  }

  function build(section) {
    if (section.firstChild) return;
    const g = Number(section.dataset.group);
    const all = make("button", { type: "button" });
    all.addEventListener("click", () => keepAll(g));
    section.append(
      make("header", {}, make("h2", { id: "h" + g }, `Group ${whole.format(g + 1)}`),
        make("span", { className: "note" }), make("span", { className: "note alert", role: "status" }), all),
      make("ul", { className: "photos" }));
    addPhotos(section, g, FIRST_SHOWN);
    section.querySelector(".photo").tabIndex = 0;
    showNotes(section, g);
  }

  const sections = groups.map((group, g) => {
    const section = make("section", { className: "group" });
    section.setAttribute("aria-label", `Group ${g + 1}, ${count(group.length, "photo")}`);
    section.dataset.group = g;
    return section;
  });
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { build(entry.target); watcher.unobserve(entry.target); }
  }, { rootMargin: "1500px 0px" });

  document.addEventListener("DOMContentLoaded", () => { // now every thumbnail is here
    for (const waiting of document.querySelectorAll(".later")) {
      const item = waiting.closest(".photo"), g = Number(item.closest(".group").dataset.group);
      const place = Number(item.dataset.place);
      waiting.replaceWith(picture(g, place, groups[g][place]));
    }
  });

  // ---- which groups, in which order -------------------------------------------------------------------------
  const freed = groups.map((group) => group.slice(1).reduce((sum, photo) => sum + (photo.bytes ?? 0), 0));
  const farthest = groups.map((group) => group[group.length - 1].similarity);
  const orders = {
    size: (a, b) => a - b, // the file's own order
    freed: (a, b) => freed[b] - freed[a] || a - b,
    doubtful: (a, b) => farthest[a] - farthest[b] || a - b,
    similar: (a, b) => farthest[b] - farthest[a] || a - b,
  };
  const kinds = {
    all: () => true,
    near: (g) => groups[g].some((photo, place) => place && isNear(photo)),
    identical: (g) => groups[g].every((photo, place) => !place || photo.identical),
    changed: isChanged,
  };
  let visible = [];

  function arrange() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (photo) => { const text = (photo.path ?? photo.id).toLowerCase(); return words.every((word) => text.includes(word)); };
    const kind = kinds[byId("show").value];
    visible = groups.map((_, g) => g).filter((g) => kind(g) && (!words.length || groups[g].some(fits)));
    visible.sort(orders[byId("sort").value]);
    list.replaceChildren(...visible.map((g) => sections[g]));
    for (const g of visible) if (!sections[g].firstChild) watcher.observe(sections[g]);
    byId("none").hidden = visible.length > 0;
    byId("count").textContent = visible.length === groups.length
      ? count(groups.length, "group") : `${whole.format(visible.length)} of ${count(groups.length, "group")}`;
  }
  let typing;
  byId("find").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(arrange, 120); });
  byId("show").addEventListener("change", arrange);
  byId("sort").addEventListener("change", arrange);
  byId("reset").addEventListener("click", () => {
    byId("find").value = "";
    byId("show").value = "all";
    arrange();
  });

  // ---- marking and exporting --------------------------------------------------------------------------------
  function toggle(g, place) {
    setAction(g, place, action(g, place) === "keep" ? "move" : "keep");
    remember();
    showMarks(g);
  }
  function keepAll(g) {
    const back = isChanged(g);
    groups[g].forEach((_, place) => setAction(g, place, back ? proposed(place) : "keep"));
    remember();
    showMarks(g);
  }
  function planRow(g, place) {
    const photo = groups[g][place];
    const row = { group: g + 1, ...photo, action: action(g, place), similarity: photo.similarity.toFixed(6), identical: Boolean(photo.identical), same_pixels: Boolean(photo.same_pixels) };
    return data.columns.map((column) => {
      const text = String(row[column] ?? "");
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    }).join(",");
  }
  byId("export").addEventListener("click", () => {
    const rows = groups.flatMap((group, g) => group.map((_, place) => planRow(g, place)));
    const file = new Blob([[data.columns.join(","), ...rows, ""].join("\n")], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(file), download: "plan.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // ---- comparing ------------------------------------------------------------------------------------------
  const compare = byId("compare"), stage = compare.querySelector(".stage");
  let compared = null, mode = "side";

  function full(g, place) { // the file itself, and its thumbnail where the browser cannot show it
    const photo = groups[g][place], small = thumbnail(g, place);
    const image = make("img", { alt: name(photo), draggable: false });
    image.addEventListener("error", () => {
      if (small && image.src !== small) image.src = small;
      else image.replaceWith(make("span", { className: "gone" }, "The file has gone or cannot be read"));
    });
    image.src = photo.uri ?? (small || "data:,");
    return image;
  }

  function showCompare() {
    const [g, place] = compared, group = groups[g], best = group[0], copy = group[place];
    compare.querySelector("h2").textContent = `Group ${whole.format(g + 1)} · ${name(best)} · copy ${whole.format(place)} of ${whole.format(group.length - 1)}`;
    for (const button of compare.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    stage.className = "stage " + mode;
    if (mode === "side") {
      stage.replaceChildren(
        make("figure", {}, full(g, 0), make("figcaption", {}, "Best")),
        make("figure", {}, full(g, place), make("figcaption", {}, copy.identical ? "Identical" : copy.same_pixels ? "Same pixels" : similarity(copy))));
    } else {
      const canvas = make("div", { className: "canvas" }, full(g, 0), full(g, place));
      if (best.width && best.height) { // both are laid over each other in the shape of the best
        canvas.style.aspectRatio = `${best.width} / ${best.height}`;
        const fit = () => { canvas.style.width = `min(100%, ${stage.clientHeight * best.width / best.height}px)`; };
        requestAnimationFrame(fit);
      }
      stage.replaceChildren(make("figure", {}, canvas));
      wipe();
    }
    const rows = [["Name", name], ["Folder", folder], ["Pixels", pixels], ["Size", (photo) => size(photo.bytes)], ["Modified", moment]];
    compare.querySelector(".facts").replaceChildren(...rows.map(([label, of]) => {
      const other = of(best) === of(copy) ? "" : "other";
      return make("tr", {}, make("th", {}, label), make("td", {}, of(best)), make("td", { className: other }, of(copy)));
    }));
    const now = action(g, place), mark = compare.querySelector("footer .mark");
    mark.className = "mark " + now;
    mark.textContent = now === "keep" ? "Copy: keep" : "Copy: move";
    const [back, on] = compare.querySelectorAll("[data-step]");
    back.disabled = place <= 1;
    on.disabled = place >= group.length - 1;
  }
  function wipe() {
    const share = compare.querySelector(".wipe input").value;
    const top = stage.querySelector(".canvas img + img");
    if (top) top.style.clipPath = mode === "over" ? `inset(0 0 0 ${share}%)` : "";
  }
  function openCompare(g, place) {
    compared = [g, Math.max(1, place)];
    showCompare();
    if (!compare.open) compare.showModal();
    requestAnimationFrame(showCompare); // once the stage has its size
  }
  function stepCompare(step) {
    const [g, place] = compared, next = place + step;
    if (next < 1 || next >= groups[g].length) return;
    compared = [g, next];
    showCompare();
  }
  function setMode(wanted) { mode = wanted; showCompare(); }
  for (const button of compare.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
  for (const button of compare.querySelectorAll("[data-step]")) button.addEventListener("click", () => stepCompare(Number(button.dataset.step)));
  compare.querySelector("footer .mark").addEventListener("click", () => { toggle(...compared); showCompare(); });
  compare.querySelector(".wipe input").addEventListener("input", wipe);
  window.addEventListener("resize", () => { if (compare.open) showCompare(); });
  compare.addEventListener("close", () => focusPhoto(...compared));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  byId("help").addEventListener("click", () => byId("keys").showModal());

  // ---- keyboard: one photo of each group can be tabbed to, and arrows move between photos -------------------
  function rove(item) {
    for (const other of item.parentElement.children) other.tabIndex = other === item ? 0 : -1;
  }
  function focusPhoto(g, place) {
    if (place >= FIRST_SHOWN) addPhotos(sections[g], g, place + 1);
    sections[g].querySelectorAll(".photo")[place]?.focus({ preventScroll: true });
    sections[g].scrollIntoView({ block: "nearest" });
  }
  function focusGroup(at) {
    const g = visible[at];
    if (g === undefined) return;
    build(sections[g]);
    focusPhoto(g, 0);
    sections[g].scrollIntoView({ block: "start" });
  }
  function onScreen() {
    return visible.findIndex((g) => sections[g].getBoundingClientRect().bottom > 100);
  }
  const keysCompare = {
    ArrowLeft: () => stepCompare(-1), ArrowRight: () => stepCompare(1), s: () => setMode("side"), o: () => setMode("over"),
    d: () => setMode("difference"), " ": () => { toggle(...compared); showCompare(); },
  };
  function keysList(key, item) {
    const section = document.activeElement.closest?.(".group");
    const at = section ? visible.indexOf(Number(section.dataset.group)) : -1;
    const g = section && Number(section.dataset.group), place = item && Number(item.dataset.place);
    if (key === "/") return () => byId("find").focus();
    if (key === "?") return () => byId("keys").showModal();
    if (key === "j" || (item && key === "ArrowDown")) return () => focusGroup(at < 0 ? onScreen() : at + 1);
    if (key === "k" || (item && key === "ArrowUp")) return () => focusGroup(at < 0 ? onScreen() : at - 1);
    if (section && key === "a") return () => keepAll(g);
    if (!item) return undefined;
    return {
      ArrowRight: () => focusPhoto(g, Math.min(place + 1, groups[g].length - 1)),
      ArrowLeft: () => focusPhoto(g, Math.max(place - 1, 0)),
      " ": () => toggle(g, place),
      Enter: () => openCompare(g, place),
    }[key];
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (compare.open) {
      if (event.key === " " && event.target.matches("button")) return; // the button's own
      const act = keysCompare[event.key];
      if (act) { event.preventDefault(); act(); }
      return;
    }
    const item = event.target.matches(".photo") ? event.target : null;
    const act = keysList(event.key, item);
    if (act) { event.preventDefault(); act(); }
  });

  arrange();
  showPlan();
})();
