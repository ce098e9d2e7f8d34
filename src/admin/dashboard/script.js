"use strict";
// One page without a library. What peers or names say is only ever set as text.
const $ = (id) => document.getElementById(id);
const KEEP = 180;
const SVG = "http://www.w3.org/2000/svg";
const history = new Map();
let last = null, now = null, scope = null, stopped = null, sessions = [], wrongToken = false;

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
const SIGNS = { up: ["●", "up"], marked: ["▲", "warn"], down: ["✕", "bad"], drain: ["◐", "warn"], maintenance: ["■", "warn"], "not served": ["✕", "bad"], serving: ["●", "up"], draining: ["◐", "warn"] };
const stateOf = (word) => {
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

// Cells are put into what is there already: whoever presses a button, marks a text or reads on keeps
// his place, as often as there is something new.
const put = (td, cell) => {
  if (typeof cell === "function") cell(td);
  else if (td.textContent !== cell) td.textContent = cell;
};
const fill = (table, columns, rows, empty) => {
  const focused = document.activeElement && document.activeElement.dataset.key;
  if (!table.tHead) {
    const line = make("tr");
    for (const [name, cls] of columns) {
      const cell = make("th", name, cls || "");
      cell.scope = "col";
      line.append(cell);
    }
    table.createTHead().append(line);
    table.createTBody();
  }
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((it) => [it.dataset.row, it]));
  const all = rows.length ? rows : [["", empty]];
  all.forEach(([key, ...cells], at) => {
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = make("tr");
      row.dataset.row = key;
      cells.forEach((_, column) => {
        const td = make("td", undefined, rows.length ? columns[column][1] || "" : "empty");
        td.dataset.name = columns[column][0];
        row.append(td);
      });
      if (!rows.length) row.cells[0].colSpan = columns.length;
    }
    cells.forEach((cell, column) => put(row.cells[column], cell));
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
  });
  for (const row of known.values()) row.remove();
  if (focused && (!document.activeElement || document.activeElement === document.body)) {
    const again = [...table.querySelectorAll("button")].find((it) => it.dataset.key === focused);
    if (again) again.focus();
  }
};
const state = (word) => (td) => {
  if (td.dataset.word === word) return;
  td.dataset.word = word;
  td.replaceChildren(stateOf(word));
};
const drawn = (label, ...lists) => (td) => td.replaceChildren(curve(label, ...lists));
const button = (text, key, act, cls) => (td) => {
  let it = td.firstElementChild;
  if (!it) {
    it = make("button", "", cls);
    it.type = "button";
    it.addEventListener("click", () => it.act());
    td.append(it);
  }
  it.act = act;
  it.dataset.key = key;
  if (it.textContent !== text) it.textContent = text;
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
      $("token-text").textContent = token() ? "That token is wrong. It is the one in the file that [admin] token_file names." : "This endpoint needs its token.";
      dialog.returnValue = "";
      dialog.showModal();
      await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
      if (dialog.returnValue === "yes") {
        sessionStorage.setItem("token", $("token").value.trim());
        $("token").value = "";
        return ask(path, options);
      }
    }
    // Without one nothing is asked again by itself: load the page anew.
    wrongToken = true;
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
// What came of an order stands until the next one.
const say = (text, bad) => {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "";
  $("said").hidden = !text;
};
const confirmed = (text) => new Promise((done) => {
  const dialog = $("confirm");
  $("confirm-text").textContent = text;
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  dialog.showModal();
});
const order = async (done, text, path, body) => {
  say("");
  if (!await confirmed(text)) return;
  try {
    const answer = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const told = await answer.json();
    say(told.missing && told.missing.length ? "It had ended already." : done + ": done.");
    if (path.includes("sessions")) look();
  } catch (error) {
    say("Not done: " + error.message, true);
  }
};

// Telling.
const per = (one, other) => last ? Math.max(0, (one - other) / ((now.at_ms - last.at_ms) / 1000)) : 0;
const tile = (name, value, unit, ...lists) => {
  const it = make("div", undefined, "tile");
  const minutes = Math.max(1, Math.round(lists[0].length / 60));
  const about = "peak " + unit(Math.max(0, ...lists.flat())) + " in " + (lists[0].length < 60 ? lists[0].length + " s" : minutes + " min");
  it.append(make("h3", name), make("p", value), curve(name + ", " + about, ...lists), make("p", about, "peak"));
  return it;
};
const draw = () => {
  const a = now.about, t = a.totals, l = last ? last.about.totals : t;
  $("about").textContent = a.version + ", " + a.engine + ", up " + time(a.uptime_seconds) + ", configuration " + a.config_hash.slice(0, 8) + " (generation " + a.generation + "), " + a.phase;
  document.body.classList.remove("stale");
  trouble(a.unready.length ? "Not ready: " + a.unready.join("; ") : "");
  const up = per(t.up, l.up), down = per(t.down, l.down);
  const began = per(t.accepted, l.accepted), failed = per(t.failures, l.failures);
  $("tiles").replaceChildren(
    tile("Up ── / down ╌╌ a second", bytes(up) + " / " + bytes(down), bytes, push("up", up), push("down", down)),
    tile("Connections a second", count(began), count, push("began", began)),
    tile("Sessions of " + count(a.sessions_max), count(a.sessions), count, push("live", a.sessions)),
    tile("Failed connects a second", count(failed), count, push("failed", failed)),
  );
  const before = new Map((last ? last.forwards : []).map((it) => [it.name, it]));
  fill($("forwards"), [["Forward"], ["State"], ["Why", "wide"], ["Sessions", "n"], ["New / s", "n opt"], ["Up / s", "n opt"], ["Down / s", "n opt"], ["Traffic", "opt"], ["Actions", "act"]], now.forwards.map((it) => {
    const was = before.get(it.name) || it;
    const u = per(it.bytes.up, was.bytes.up), d = per(it.bytes.down, was.bytes.down);
    const path = "/v1/forwards/" + encodeURIComponent(it.name);
    return [it.name, button(it.name, "look f " + it.name, () => narrow("forward", it.name), "link"),
      state(it.state === "serving" && it.why ? "not served" : it.state), it.why || "", count(it.sessions), count(per(it.sessions_total, was.sessions_total)), bytes(u), bytes(d), drawn("traffic of " + it.name, push("f " + it.name, u + d)),
      it.state === "serving"
        ? button("Drain", "drain f " + it.name, () => order("Drain " + it.name, "Let nobody in at " + it.name + " any more? Its " + it.sessions + " sessions go on.", path + "/drain", null))
        : button("Take back", "drain f " + it.name, () => order("Take back " + it.name, "Let clients in at " + it.name + " again?", path + "/ready", null))];
  }), "no forwards");
  const text = $("filter").value.trim().toLowerCase();
  const old = new Map((last ? last.servers : []).map((it) => [it.id, it]));
  fill($("servers"), [["Server"], ["State"], ["Why", "wide"], ["Sessions", "n"], ["Weight", "n opt"], ["Connects / s", "n opt"], ["Failed / s", "n opt"], ["Connect p99", "n opt"], ["Traffic", "opt"], ["Actions", "act"]], now.servers
    .filter((it) => !text || (it.pool + "/" + it.address + " " + it.state).toLowerCase().includes(text))
    .map((it) => {
      const was = old.get(it.id) || it, name = it.pool + "/" + it.address;
      const sum = (of) => Object.values(of.failures).reduce((one, other) => one + other, 0);
      const moved = per(it.bytes.up + it.bytes.down, was.bytes.up + was.bytes.down);
      const open = it.state !== "drain" && it.state !== "maintenance";
      return [String(it.id),
        button(name, "look " + it.id, () => narrow("server", name), "link"), state(it.state),
        (it.why || "") + (it.state === "up" ? "" : " for " + time(it.state_seconds)),
        count(it.sessions), String(it.weight), count(per(it.connects, was.connects)), count(per(sum(it), sum(was))), time(it.connect.p99_seconds),
        drawn("traffic of " + name, push("s " + it.id, moved)),
        open
          ? button("Drain", "drain " + it.id, () => order("Drain " + name, "Drain " + name + "? It keeps its " + it.sessions + " sessions and gets no more.", "/v1/servers/" + it.id, { state: "drain" }))
          : button("Take back", "drain " + it.id, () => order("Take back " + name, "Let sessions go to " + name + " again?", "/v1/servers/" + it.id, { state: "active" })),
      ];
    }), text ? "no server fits the filter" : "no servers");
  const ends = now.forwards.flatMap((it) => it.endings.map((end) => ({ forward: it.name, ...end })));
  const earlier = new Map((last ? last.forwards : []).flatMap((it) => it.endings.map((end) => [it.name + " " + end.code + " " + end.cause, end.count])));
  const recent = ends.map((it) => ({ ...it, rate: per(it.count, earlier.get(it.forward + " " + it.code + " " + it.cause) || 0) }));
  recent.sort((one, other) => other.rate - one.rate || other.count - one.count);
  fill($("endings"), [["Forward"], ["Code"], ["Cause"], ["A second", "n"], ["In all", "n"]], recent.slice(0, 50).map((it) => [it.forward + " " + it.code + " " + it.cause, it.forward, it.code, it.cause.replaceAll("_", " "), count(it.rate), count(it.count)]), "no session has ended yet");
  const refused = new Map((last ? last.refused : []).map((it) => [it.forward + " " + it.by, it.count]));
  fill($("refused"), [["Forward"], ["Refused by", "wide"], ["A second", "n"], ["In all", "n"]], now.refused.map((it) => {
    const key = it.forward + " " + it.by;
    return [key, it.forward || "–", it.by, count(per(it.count, refused.get(key) || 0)), count(it.count)];
  }), "nobody was refused yet");
  drawScope();
};
const narrow = (kind, name) => {
  scope = { kind, name };
  drawScope();
  look();
  $("h-sessions").scrollIntoView({ block: "nearest" });
};
// What there is to say of the server or forward whose sessions are shown.
const drawScope = () => {
  $("scope").hidden = !scope;
  if (!scope) return;
  const parts = [(scope.kind === "server" ? "on " : "of ") + scope.name];
  const server = scope.kind === "server" && now && now.servers.find((it) => it.pool + "/" + it.address === scope.name);
  if (server) {
    parts.push(server.state + " for " + time(server.state_seconds), "weight " + server.weight, count(server.connects) + " connects");
    for (const [cause, times] of Object.entries(server.failures)) if (times) parts.push(count(times) + " " + cause);
    parts.push("connect p50 " + time(server.connect.p50_seconds) + ", p99 " + time(server.connect.p99_seconds));
    if (server.max_connections) parts.push("at most " + server.max_connections + " sessions");
    if (server.max_per_client) parts.push(server.max_per_client + " of a client");
    if (server.connect_limit) parts.push(count(server.connect_limit.per_second) + " new a second");
    if (server.rate_limit) parts.push("up to " + bytes(server.rate_limit.up) + " up, " + bytes(server.rate_limit.down) + " down a second (0 is any)");
  }
  put($("scope-text"), parts.join(" · "));
};
// All that is known of a session.
const detail = (it) => {
  const leg = (of) => of ? "rtt " + time(of.rtt_seconds) + ", " + of.retransmits + " resent, " + bytes(of.delivery_rate) + "/s delivered, held by " + of.limited_by.replaceAll("_", " ") : "–";
  const lane = (of) => bytes(of.bytes) + ", " + bytes(of.rate) + "/s, " + bytes(of.held) + " held here, by " + of.path + (of.ended ? ", ended" : "");
  const lines = [["Session", it.id + ", " + it.phase + ", " + time(it.age_seconds)], ["Client", it.client], ["Forward", it.forward + " at " + it.listener + (it.route ? ", route " + it.route : "")],
    ["Server", (it.pool ? it.pool + "/" : "") + (it.server || "–")], ["Asked for", [it.target, it.sni, it.user].filter(Boolean).join(", ") || "–"], ["Held back by", it.verdict.replaceAll("_", " ")],
    ["Up", lane(it.up)], ["Down", lane(it.down)], ["To the client", leg(it.client_tcp)], ["To the server", leg(it.upstream_tcp)], ["Connected after", time(it.connect_seconds)], ["First byte after", time(it.first_byte_seconds)],
    ["Rates", it.rates.map((rate) => rate.of + " " + bytes(rate.up) + " up, " + bytes(rate.down) + " down").join("; ") || "–"]];
  $("detail-list").replaceChildren(...lines.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  $("detail").showModal();
};
const drawSessions = () => {
  drawScope();
  fill($("sessions"), [["Session", "opt"], ["Forward", "opt"], ["Client"], ["Server", "opt"], ["Age", "n opt"], ["Up / s", "n opt"], ["Down / s", "n"], ["RTT", "n opt"], ["Resent", "n opt"], ["Held back by", "wide"], ["Actions", "act"]], sessions.map((it) => {
    const legs = [it.client_tcp, it.upstream_tcp].filter(Boolean);
    return [it.id, it.id, it.forward, button(it.client, "detail " + it.id, () => detail(it), "link"), it.server || it.target || "–", time(it.age_seconds), bytes(it.up.rate), bytes(it.down.rate),
      legs.map((leg) => time(leg.rtt_seconds)).join(" / ") || "–", String(legs.reduce((n, leg) => n + leg.retransmits, 0)), it.verdict.replaceAll("_", " "),
      button("End", "kill " + it.id, () => order("End session " + it.id, "End session " + it.id + " of " + it.client + " with a reset?", "/v1/sessions/kill", { ids: [it.id] }))];
  }), "no sessions");
};
const look = async () => {
  try {
    const where = scope ? "&" + scope.kind + "=" + encodeURIComponent(scope.name) : "";
    const answer = await ask("/v1/sessions?sort=" + $("order").value + "&limit=15&interval_ms=300" + where);
    sessions = (await answer.json()).sessions;
    drawSessions();
  } catch (error) {
    say("Sessions: " + error.message, true);
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
      document.body.classList.add("stale");
      trouble("Not connected, what is shown is old: " + error.message);
      if (wrongToken) return;
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
setInterval(() => { if (!document.hidden && !wrongToken && !document.querySelector("dialog[open]")) look(); }, 5000);
$("filter").addEventListener("input", () => now && draw());
$("order").addEventListener("change", look);
$("scope-off").addEventListener("click", () => { scope = null; look(); });
drawSessions();
wake();
