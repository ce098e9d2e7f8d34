"use strict";
// One page without a library. What peers or names say is only ever set as text.
const $ = (id) => document.getElementById(id);
const KEEP = 180;
const SVG = "http://www.w3.org/2000/svg";
const history = new Map();
let last = null, now = null, scope = null, stopped = null, sessions = [];

const make = (tag, text, cls) => {
  const it = document.createElement(tag);
  if (text !== undefined && text !== null) it.textContent = text;
  if (cls) it.className = cls;
  return it;
};
const bytes = (n) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  for (n = Math.max(0, n); n >= 999.5 && at < 5; at++) n /= 1024;
  return (at === 0 || n >= 9.95 ? n.toFixed(0) : n.toFixed(1)) + " " + units[at];
};
const time = (s) => {
  if (s === undefined || s === null) return "–";
  if (s < 0.001) return (s * 1e6).toFixed(0) + " µs";
  if (s < 1) return (s * 1e3).toFixed(s < 0.01 ? 1 : 0) + " ms";
  if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
};
const count = (n) => n >= 1e6 ? (n / 1e6).toFixed(1) + " M" : n >= 1e4 ? (n / 1e3).toFixed(1) + " k" : n.toFixed(n < 10 && n % 1 ? 1 : 0);

// A state is told by a sign and a word, not by its colour alone.
const SIGNS = { up: ["●", "up"], marked: ["▲", "warn"], down: ["✕", "bad"], drain: ["◐", "warn"], maintenance: ["■", "warn"], serving: ["●", "up"], draining: ["◐", "warn"] };
const state = (word) => {
  const [sign, cls] = SIGNS[word] || ["?", ""];
  return make("span", sign + " " + word, cls);
};

const push = (key, value) => {
  let list = history.get(key);
  if (!list) history.set(key, list = []);
  list.push(value);
  if (list.length > KEEP) list.shift();
  return list;
};
const curve = (label, ...lists) => {
  const svg = document.createElementNS(SVG, "svg");
  const high = Math.max(1e-9, ...lists.flat());
  svg.setAttribute("viewBox", "0 0 " + (KEEP - 1) + " 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  lists.forEach((list, at) => {
    const path = document.createElementNS(SVG, "path");
    const first = KEEP - list.length;
    path.setAttribute("d", list.map((v, i) => (i ? "L" : "M") + (first + i) + " " + (97 - 94 * v / high).toFixed(1)).join(""));
    if (at) path.setAttribute("class", "other");
    svg.append(path);
  });
  return svg;
};

const fill = (table, columns, rows, empty) => {
  const focused = document.activeElement && document.activeElement.dataset.key;
  const head = make("thead"), line = make("tr");
  for (const [name, numeric] of columns) {
    const cell = make("th", name, numeric ? "n" : "");
    cell.scope = "col";
    line.append(cell);
  }
  head.append(line);
  const body = make("tbody");
  for (const cells of rows) {
    const row = make("tr");
    cells.forEach((cell, at) => {
      const td = make("td", undefined, columns[at][1] ? "n" : columns[at][2] || "");
      td.append(cell instanceof Node ? cell : document.createTextNode(cell));
      row.append(td);
    });
    body.append(row);
  }
  if (!rows.length) {
    const cell = make("td", empty, "empty");
    cell.colSpan = columns.length;
    const row = make("tr");
    row.append(cell);
    body.append(row);
  }
  table.replaceChildren(head, body);
  if (focused) {
    const again = [...table.querySelectorAll("button")].find((it) => it.dataset.key === focused);
    if (again) again.focus();
  }
};
const button = (text, key, act, cls) => {
  const it = make("button", text, cls);
  it.type = "button";
  it.dataset.key = key;
  it.addEventListener("click", act);
  return it;
};

// Asking.
const token = () => sessionStorage.getItem("token");
const ask = async (path, options = {}) => {
  const headers = { ...(options.headers || {}) };
  if (token()) headers.Authorization = "Bearer " + token();
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    const dialog = $("ask-token");
    if (!dialog.open) {
      dialog.showModal();
      await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
      sessionStorage.setItem("token", $("token").value.trim());
      $("token").value = "";
      return ask(path, options);
    }
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || answer.status + " " + answer.statusText);
  }
  return answer;
};
const trouble = (text) => {
  $("trouble").textContent = text || "";
  $("trouble").hidden = !text;
};
const confirmed = (text) => new Promise((done) => {
  const dialog = $("confirm");
  $("confirm-text").textContent = text;
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  dialog.showModal();
});
const order = async (text, path, body) => {
  if (!await confirmed(text)) return;
  try {
    await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    trouble("");
    if (path.includes("sessions")) look();
  } catch (error) {
    trouble(error.message);
  }
};

// Telling.
const per = (one, other) => last ? Math.max(0, (one - other) / ((now.at_ms - last.at_ms) / 1000)) : 0;
const tile = (name, value, ...lists) => {
  const it = make("div", undefined, "tile");
  it.append(make("h3", name), make("p", value));
  if (lists.length) it.append(curve(name + " over the last minutes", ...lists));
  return it;
};
const draw = () => {
  const a = now.about, t = now.totals, l = last ? last.totals : t;
  $("about").textContent = a.version + ", " + a.engine + ", up " + time(a.uptime_seconds) + ", configuration " + a.config_hash.slice(0, 8) + " (generation " + a.generation + "), " + a.phase;
  trouble(a.unready.join("; "));
  const up = per(t.up, l.up), down = per(t.down, l.down);
  const began = per(t.accepted, l.accepted), failed = per(t.failures, l.failures);
  $("tiles").replaceChildren(
    tile("Up / down a second", bytes(up) + " / " + bytes(down), push("up", up), push("down", down)),
    tile("Connections a second", count(began), push("began", began)),
    tile("Sessions of " + count(a.sessions_max), count(a.sessions), push("live", a.sessions)),
    tile("Failed connects a second", count(failed), push("failed", failed)),
  );
  const before = new Map((last ? last.forwards : []).map((it) => [it.name, it]));
  fill($("forwards"), [["Forward"], ["State"], ["Sessions", 1], ["New / s", 1], ["Up / s", 1], ["Down / s", 1], ["Traffic"]], now.forwards.map((it) => {
    const was = before.get(it.name) || it;
    const u = per(it.bytes.up, was.bytes.up), d = per(it.bytes.down, was.bytes.down);
    return [it.name, state(it.state), count(it.sessions), count(per(it.sessions_total, was.sessions_total)), bytes(u), bytes(d), curve("traffic of " + it.name, push("f " + it.name, u + d))];
  }), "no forwards");
  const text = $("filter").value.trim().toLowerCase();
  const old = new Map((last ? last.servers : []).map((it) => [it.id, it]));
  fill($("servers"), [["Server"], ["State"], ["Why", 0, "wide"], ["Sessions", 1], ["Weight", 1], ["Connects / s", 1], ["Failed / s", 1], ["Connect p99", 1], ["Traffic"], ["Actions"]], now.servers
    .filter((it) => !text || (it.pool + "/" + it.address + " " + it.state).toLowerCase().includes(text))
    .map((it) => {
      const was = old.get(it.id) || it, name = it.pool + "/" + it.address;
      const sum = (of) => Object.values(of.failures).reduce((one, other) => one + other, 0);
      const moved = per(it.bytes.up + it.bytes.down, was.bytes.up + was.bytes.down);
      const open = it.state !== "drain" && it.state !== "maintenance";
      return [
        button(name, "look " + it.id, () => { scope = name; look(); }, "link"), state(it.state),
        (it.why || "") + (it.state === "up" ? "" : " for " + time(it.state_seconds)),
        count(it.sessions), String(it.weight), count(per(it.connects, was.connects)), count(per(sum(it), sum(was))), time(it.connect.p99_seconds),
        curve("traffic of " + name, push("s " + it.id, moved)),
        open
          ? button("Drain", "drain " + it.id, () => order("Drain " + name + "? It keeps its " + it.sessions + " sessions and gets no more.", "/v1/servers/" + it.id, { state: "drain" }))
          : button("Take back", "ready " + it.id, () => order("Let sessions go to " + name + " again?", "/v1/servers/" + it.id, { state: "active" })),
      ];
    }), text ? "no server fits the filter" : "no servers");
  const ends = now.forwards.flatMap((it) => it.endings.map((end) => ({ forward: it.name, ...end })));
  const earlier = new Map((last ? last.forwards : []).flatMap((it) => it.endings.map((end) => [it.name + " " + end.code + " " + end.cause, end.count])));
  const recent = ends.map((it) => ({ ...it, rate: per(it.count, earlier.get(it.forward + " " + it.code + " " + it.cause) || 0) }));
  recent.sort((one, other) => other.rate - one.rate || other.count - one.count);
  fill($("endings"), [["Forward"], ["Code"], ["Cause"], ["A second", 1], ["In all", 1]], recent.slice(0, 50).map((it) => [it.forward, it.code, it.cause.replaceAll("_", " "), count(it.rate), count(it.count)]), "no session has ended yet");
};
const drawSessions = () => {
  $("scope").hidden = !scope;
  $("scope-text").textContent = scope ? "on " + scope : "";
  fill($("sessions"), [["Session"], ["Forward"], ["Client"], ["Server"], ["Age", 1], ["Up / s", 1], ["Down / s", 1], ["RTT", 1], ["Resent", 1], ["Held back by"], ["Actions"]], sessions.map((it) => {
    const legs = [it.client_tcp, it.upstream_tcp].filter(Boolean);
    return [it.id, it.forward, it.client, it.server || it.target || "–", time(it.age_seconds), bytes(it.up.rate), bytes(it.down.rate),
      legs.map((leg) => time(leg.rtt_seconds)).join(" / ") || "–", String(legs.reduce((n, leg) => n + leg.retransmits, 0)), it.verdict.replaceAll("_", " "),
      button("End", "kill " + it.id, () => order("End session " + it.id + " of " + it.client + " with a reset?", "/v1/sessions/kill", { ids: [it.id] }))];
  }), "no sessions");
};
const look = async () => {
  try {
    const where = scope ? "&server=" + encodeURIComponent(scope) : "";
    const answer = await ask("/v1/sessions?sort=rate&limit=15&interval_ms=300" + where);
    sessions = (await answer.json()).sessions;
    drawSessions();
  } catch (error) {
    trouble(error.message);
  }
};

// Live, while somebody sees it.
const listen = async () => {
  const ended = new AbortController();
  stopped = ended;
  while (!ended.signal.aborted) {
    try {
      const answer = await ask("/v1/live", { signal: ended.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) {
          const data = part.split("\n").filter((it) => it.startsWith("data: ")).map((it) => it.slice(6)).join("");
          if (!data) continue;
          last = now;
          now = JSON.parse(data);
          draw();
        }
      }
    } catch (error) {
      if (ended.signal.aborted) return;
      trouble("not connected: " + error.message);
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
};
const wake = () => {
  if (document.hidden) {
    if (stopped) stopped.abort();
    stopped = null;
  } else if (!stopped) {
    last = now = null;
    listen();
    look();
  }
};
document.addEventListener("visibilitychange", wake);
setInterval(() => { if (!document.hidden && !$("confirm").open) look(); }, 5000);
$("filter").addEventListener("input", () => now && draw());
$("scope-off").addEventListener("click", () => { scope = null; look(); });
drawSessions();
wake();
