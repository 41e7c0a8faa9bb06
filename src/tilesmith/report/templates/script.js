"use strict";
// The page is complete without this script, but for what it holds of single trials. Text becomes text nodes, never markup.
(() => {
  const id = (name) => document.getElementById(name);
  const dialog = id("detail"), body = id("detail-body"), title = id("detail-title");
  let entries = null, opener = null;

  async function trials() {
    if (entries) return entries;
    const packed = Uint8Array.from(atob(id("archive").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    entries = JSON.parse(await new Response(stream).text());
    return entries;
  }

  function make(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function table(head, rows, name) {
    const made = make("table", undefined, name), inside = make("tbody");
    if (head) {
      const row = make("tr");
      for (const words of head) { const cell = make("th", words); cell.scope = "col"; row.append(cell); }
      made.append(make("thead")); made.firstChild.append(row);
    }
    for (const cells of rows) {
      const row = make("tr");
      cells.forEach((words, place) => {
        const cell = make(!head && place === 0 ? "th" : "td", words);
        if (!head && place === 0) cell.scope = "row";
        row.append(cell);
      });
      inside.append(row);
    }
    made.append(inside);
    return made;
  }

  function code(text) {
    const made = make("pre"); made.tabIndex = 0; made.append(make("code", text));
    return made;
  }

  function fold(words, content, open) {
    const made = make("details"); made.open = Boolean(open);
    made.append(make("summary", words), content);
    return made;
  }

  // The longest common subsequence of lines, after what is the same at both ends; each line as [kind, text].
  function difference(before, after) {
    const a = before.split("\n"), b = after.split("\n");
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end), rows = [];
    for (const line of a.slice(0, start)) rows.push(["same", line]);
    if (x.length * y.length > 4e6) {
      for (const line of x) rows.push(["cut", line]);
      for (const line of y) rows.push(["add", line]);
    } else {
      const width = y.length + 1, common = new Uint16Array((x.length + 1) * width);
      for (let i = x.length - 1; i >= 0; i--)
        for (let j = y.length - 1; j >= 0; j--)
          common[i * width + j] = x[i] === y[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      let i = 0, j = 0;
      while (i < x.length || j < y.length) {
        if (i < x.length && j < y.length && x[i] === y[j]) { rows.push(["same", x[i]]); i++; j++; }
        else if (j >= y.length || (i < x.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) rows.push(["cut", x[i++]]);
        else rows.push(["add", y[j++]]);
      }
    }
    for (const line of a.slice(a.length - end)) rows.push(["same", line]);
    return rows;
  }

  function differenceOf(before, after) {
    const rows = difference(before, after), near = 3, made = make("pre", undefined, "diff");
    made.tabIndex = 0;
    const shown = new Set();
    rows.forEach(([kind], place) => {
      if (kind !== "same") for (let other = place - near; other <= place + near; other++) shown.add(other);
    });
    let left = 0;
    rows.forEach(([kind, line], place) => {
      if (!shown.has(place)) { left++; return; }
      if (left) made.append(make("span", `${left} lines are the same`, "skip-lines"));
      left = 0;
      made.append(make("span", line, kind));
    });
    if (left) made.append(make("span", left === rows.length ? "the sources are the same" : `${left} lines are the same`, "skip-lines"));
    return made;
  }

  async function show(number, focus) {
    const known = await trials(), entry = known[number];
    const row = id(`trial-${number}`);
    for (const other of document.querySelectorAll("[aria-selected=true]")) other.removeAttribute("aria-selected");
    if (row) { reveal(row); row.setAttribute("aria-selected", "true"); }
    body.replaceChildren();
    title.textContent = entry ? `${entry.title}: ${entry.verdict}, by ${entry.by}` : `Trial ${number}`;
    if (!entry) body.append(make("p", "This page holds nothing more about it."));
    else {
      body.append(table(null, entry.facts, "pairs"));
      if (entry.bottlenecks.length) body.append(make("h3", "What holds it back"), table(["", "why", "what to do"], entry.bottlenecks));
      const parent = entry.parent === null ? null : known[entry.parent];
      if (parent) {
        body.append(make("h3", "Difference to its parent"));
        const up = make("a", `trial ${entry.parent}`); up.href = `#trial-${entry.parent}`;
        const line = make("p", "From ", "quiet"); line.append(up); body.append(line);
        body.append(entry.source !== null && parent.source !== null ? differenceOf(parent.source, entry.source) : make("p", "The sources are left out of this page.", "quiet"));
      }
      body.append(make("h3", "Source"));
      body.append(entry.source === null ? make("p", "It is left out of this page.", "quiet") : fold("The whole source", code(entry.source), !parent));
      body.append(make("h3", "Profile"));
      if (entry.profile) {
        body.append(make("p", entry.profile.words, "quiet"));
        body.append(table(["kernel", "µs", "limited by", "MB of device memory", "GFLOP", "occupancy, %", "waves"], entry.profile.rows));
        if (entry.profile.metrics.length) body.append(fold("Every counter", table(["kernel", "counter", "value"], entry.profile.metrics)));
      } else body.append(make("p", "There is none: it was not compiled.", "quiet"));
      if (entry.launches.length) body.append(make("h3", "Launches"), table(["kernel", "grid", "warps", "stages", "shared bytes", "registers", "spills"], entry.launches));
      body.append(fold("Cost, walls, identity", table(null, entry.more, "pairs")));
      if (entry.reply !== null) body.append(make("h3", "The model’s reply"), fold("The whole reply", code(entry.reply)));
    }
    if (!dialog.open) { opener = document.activeElement; dialog.show(); }
    dialog.scrollTop = 0;
    if (focus) title.focus({ preventScroll: true });
  }

  function hide() {
    if (!dialog.open) return;
    dialog.close();
    const row = document.querySelector("[aria-selected=true]") || opener;
    if (row && row.isConnected) row.focus({ preventScroll: true });
    if (location.hash.startsWith("#trial-")) history.replaceState(null, "", location.pathname + location.search);
  }

  // The tree -------------------------------------------------------------------------------------------------------
  const rows = () => [...document.querySelectorAll("#tree tbody tr")];
  const level = (row) => Number(row.getAttribute("aria-level"));
  const visible = () => rows().filter((row) => !row.hidden);

  function reveal(row) {
    let wanted = level(row);
    row.hidden = false;
    for (let other = row.previousElementSibling; other && wanted > 1; other = other.previousElementSibling)
      if (level(other) < wanted) { wanted = level(other); other.hidden = false; if (other.getAttribute("aria-expanded") === "false") expand(other, true); }
  }

  function expand(row, open) {
    row.setAttribute("aria-expanded", String(open));
    let closed = Infinity;
    for (let other = row.nextElementSibling; other && level(other) > level(row); other = other.nextElementSibling) {
      if (!open) { other.hidden = true; continue; }
      if (level(other) <= closed) closed = Infinity;
      other.hidden = closed !== Infinity;
      if (closed === Infinity && other.getAttribute("aria-expanded") === "false") closed = level(other);
    }
  }

  function walk(row) {
    if (!row) return;
    for (const other of rows()) if (other.tabIndex === 0) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
  }

  function up(row) {
    for (let other = row.previousElementSibling; other; other = other.previousElementSibling) if (level(other) < level(row)) return other;
    return null;
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && dialog.open) { hide(); event.preventDefault(); return; }
    const row = event.target.closest?.("#tree tbody tr");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = visible(), place = all.indexOf(row), state = row.getAttribute("aria-expanded");
    if (event.key === "ArrowDown") walk(all[place + 1]);
    else if (event.key === "ArrowUp") walk(all[place - 1]);
    else if (event.key === "Home") walk(all[0]);
    else if (event.key === "End") walk(all[all.length - 1]);
    else if (event.key === "ArrowRight") { if (state === "false") expand(row, true); else if (state === "true") walk(all[place + 1]); }
    else if (event.key === "ArrowLeft") { if (state === "true") expand(row, false); else walk(up(row)); }
    else if (event.key === "Enter" || event.key === " ") show(row.dataset.trial, true);
    else return;
    event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#trial-'], a");
    const address = link && (link.getAttribute("href") || link.getAttribute("xlink:href") || "");
    if (address && address.startsWith("#trial-")) {
      event.preventDefault();
      history.replaceState(null, "", address);
      show(address.slice(7), true);
      return;
    }
    const row = event.target.closest?.("#tree tbody tr");
    if (row) {
      if (event.target.closest(".twist") && row.hasAttribute("aria-expanded")) expand(row, row.getAttribute("aria-expanded") !== "true");
      else { walk(row); show(row.dataset.trial, false); }
      return;
    }
    if (event.target.id === "close") hide();
    else if (event.target.id === "unfold") for (const each of rows()) { each.hidden = false; if (each.hasAttribute("aria-expanded")) each.setAttribute("aria-expanded", "true"); }
    else if (event.target.id === "fold") for (const each of rows()) {
      each.hidden = !each.classList.contains("win");
      if (each.hasAttribute("aria-expanded")) each.setAttribute("aria-expanded", String(each.classList.contains("win")));
    }
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "find") return;
    const words = event.target.value.trim().toLowerCase();
    for (const row of rows()) row.hidden = words !== "" && !row.textContent.toLowerCase().includes(words);
    if (words === "") for (const row of rows()) if (row.hasAttribute("aria-expanded")) row.setAttribute("aria-expanded", "true");
  });

  addEventListener("hashchange", () => { if (location.hash.startsWith("#trial-")) show(location.hash.slice(7), true); });
  if (location.hash.startsWith("#trial-")) show(location.hash.slice(7), true);

  // Only where a server serves the page of a run: news are put in place, what is open stays open.
  async function news() {
    try {
      const main = id("main"), answer = await fetch(`revision${location.search}`, { cache: "no-store" });
      if (answer.ok) {
        const told = await answer.json();
        if (told.revision !== Number(main.dataset.revision) || told.running !== main.dataset.running) {
          const text = await (await fetch(`./${location.search}`, { cache: "no-store" })).text();
          const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
          const at = document.activeElement?.closest?.("#tree tbody tr")?.id, open = [...main.querySelectorAll("details")].map((each) => each.open);
          const scrolled = main.querySelector(".tall")?.scrollTop || 0, words = id("find")?.value || "";
          main.replaceWith(document.adoptNode(fresh));
          entries = null;
          [...fresh.querySelectorAll("details")].forEach((each, place) => { if (open.length === fresh.querySelectorAll("details").length) each.open = open[place]; });
          if (fresh.querySelector(".tall")) fresh.querySelector(".tall").scrollTop = scrolled;
          if (at && id(at)) walk(id(at));
          if (words) { id("find").value = words; id("find").dispatchEvent(new Event("input", { bubbles: true })); }
        }
      }
    } catch { /* The server is gone, or busy: the page stays as it is. */ }
    setTimeout(news, 2000);
  }
  if (document.body.dataset.live === "yes") setTimeout(news, 2000);
})();
