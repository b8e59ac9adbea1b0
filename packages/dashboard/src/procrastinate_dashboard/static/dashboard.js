// Keeps a page up to date while it is looked at: asks for it again every two seconds, and replaces
// its content if that has changed. Without this script, pages are as they were when they were
// loaded, and everything works.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds
  const live = document.getElementById("live");
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    // What was done is told once, and not again after a reload.
    for (const name of ["done", "count", "named"]) address.searchParams.delete(name);
    history.replaceState(null, "", address);
  }
  let etag = null;
  let shown = null; // the content as the server sent it last
  let timer = 0;

  const content = () => document.getElementById("content");
  const say = (text, css) => {
    if (live.textContent !== text) live.textContent = text;
    live.className = css;
  };

  const isBusy = (old) => {
    const selection = getSelection();
    const marks = selection && !selection.isCollapsed && old.contains(selection.anchorNode);
    const focused = document.activeElement;
    return marks || (old.contains(focused) && focused.matches("input, textarea, select"));
  };

  // The element in the new content that leads where the old one led, or stands where it stood.
  const wayTo = (root, element) => {
    const way = [];
    for (let at = element; at !== root; at = at.parentElement)
      way.unshift([...at.parentElement.children].indexOf(at));
    return way;
  };
  const follow = (root, way) => way.reduce((at, index) => at && at.children[index], root);
  const twinOf = (element, old, fresh) => {
    const href = element.getAttribute("href");
    const same = href && [...fresh.querySelectorAll("a")].find((e) => e.getAttribute("href") === href);
    return same || follow(fresh, wayTo(old, element));
  };

  const replace = (old, fresh) => {
    for (const each of old.querySelectorAll("details[data-key]")) {
      const twin = fresh.querySelector(`details[data-key="${CSS.escape(each.dataset.key)}"]`);
      if (twin) twin.open = each.open;
    }
    const scrolled = [...old.querySelectorAll(".scroll, pre")].map((e) => [e.scrollLeft, e.scrollTop]);
    const focused = document.activeElement;
    const again = old.contains(focused) && focused !== old ? twinOf(focused, old, fresh) : null;
    old.replaceWith(fresh);
    [...fresh.querySelectorAll(".scroll, pre")].forEach((each, at) => {
      if (scrolled[at]) [each.scrollLeft, each.scrollTop] = scrolled[at];
    });
    if (again) again.focus({ preventScroll: true });
  };

  const update = async () => {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(address, {
      headers, cache: "no-store", signal: AbortSignal.timeout(20000), redirect: "error",
    });
    if (answer.status === 304) return;
    if (!answer.ok) throw answer;
    // What could not be shown has no more of the page than its message.
    if ("problem" in content().dataset) return location.replace(address);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("content");
    if (!fresh || isBusy(content())) return;
    etag = answer.headers.get("ETag");
    if (fresh.outerHTML === shown) return;
    shown = fresh.outerHTML;
    replace(content(), document.adoptNode(fresh));
  };

  const turn = async () => {
    try {
      await update();
      say("Live", "on");
    } catch (problem) {
      const lost = problem && [401, 403].includes(problem.status);
      say(lost ? "No access any more" : "No answer: this page is not up to date", "off");
    }
    plan();
  };
  const plan = () => {
    clearTimeout(timer);
    const goesOn = !document.hidden && content() && "live" in content().dataset;
    if (goesOn) timer = setTimeout(turn, EVERY);
    else if (document.hidden) say("", "");
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? plan() : turnSoon()));
  const turnSoon = () => {
    clearTimeout(timer);
    if ("live" in content().dataset) timer = setTimeout(turn, 0);
  };
  plan();
})();
