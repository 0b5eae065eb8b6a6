"use strict";
// Shows what /status says, again and again. All text goes in as text: names come
// from a configuration, and reasons from the network.

const interval = 2000; // milliseconds
let last = null; // what /status said before, and when: rates come of the difference

const get = (id) => document.getElementById(id);

function node(name, text, kind) {
  const n = document.createElement(name);
  n.textContent = text;
  if (kind) n.className = kind;
  return n;
}

function number(n, digits = 0) {
  return n.toLocaleString("en-US", { maximumFractionDigits: digits });
}

// moment is a time in this browser's zone, without its fractions of a second.
function moment(text) {
  const at = new Date(text);
  return isNaN(at) ? String(text) : at.toLocaleString("sv-SE", { timeZoneName: "short" });
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return number(seconds * 1e6) + " µs";
  if (seconds < 1) return number(seconds * 1e3, 1) + " ms";
  if (seconds < 120) return number(seconds, 1) + " s";
  if (seconds < 7200) return number(seconds / 60) + " min";
  if (seconds < 172800) return number(seconds / 3600) + " h";
  return number(seconds / 86400) + " days";
}

// table fills one: columns are names, with "#" in front of those of numbers. A cell
// is a text, a number, or [text, class].
function table(id, columns, rows, empty) {
  const t = get(id);
  t.replaceChildren();
  if (rows.length === 0) {
    const row = t.insertRow();
    row.append(node("td", empty, "quiet"));
    return;
  }
  const head = t.createTHead().insertRow();
  for (const c of columns) {
    const th = node("th", c.replace("#", ""), c.startsWith("#") ? "number" : "");
    th.scope = "col";
    head.append(th);
  }
  const body = t.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((cell, i) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      const shown = typeof text === "number" ? number(text, 3) : text;
      row.append(node("td", shown, (columns[i].startsWith("#") ? "number " : "") + kind));
    });
  }
}

const sum = (o) => Object.values(o || {}).reduce((a, b) => a + b, 0);

function figures(s, seconds) {
  const rate = (pick) => (seconds > 0.5 ? number((pick(s) - pick(last.status)) / seconds, 1) : "–");
  const by = (name) => (x) => sum(x.counters_by[name]);
  const failed = (x) => (x.counters_by.responses_total || {})["5xx"] || 0;
  const open = s.workers.reduce((n, w) => n + w.open, 0);
  const list = get("figures");
  list.replaceChildren();
  for (const [id, name, value, meaning] of [
    ["requests", "requests", number(s.counters.requests_total || 0), "since the start"],
    ["rate", "requests / s", rate((x) => x.counters.requests_total || 0), ""],
    ["open", "connections", number(open), "of clients, open now"],
    ["waiting", "in the queue", number(s.upstream_queue), "requests that wait for an upstream"],
    ["failed", "status 5xx / s", rate(failed), ""],
    ["client-errors", "client errors / s", rate(by("client_errors_total")), "requests refused and clients lost"],
    ["upstream-errors", "upstream errors / s", rate(by("upstream_errors_total")), ""],
    ["skew", "skew of workers", number(s.connection_skew, 2), "connections of the busiest worker, by the mean"],
    ...(s.engine.name === "io_uring"
      ? [["enters", "system calls / request", number(s.engine.enters_per_request, 2), "io_uring_enter, all turns of all workers"]]
      : []),
  ]) {
    const box = document.createElement("div");
    box.title = meaning;
    const dd = node("dd", value);
    dd.id = id;
    box.append(node("dt", name), dd);
    list.append(box);
  }
}

const kinds = { up: "good", down: "bad", ejected: "bad", drained: "warn" };

function upstreams(s, seconds) {
  const before = new Map((last ? last.status.upstreams : []).map((u) => [u.name + " " + u.address, u.requests]));
  table("upstreams",
    ["name", "address", "state", "#weight", "#requests", "#/ s", "#in flight", "#idle", "#failures",
      "#ejections", "last check"],
    s.upstreams.map((u) => {
      const old = before.get(u.name + " " + u.address);
      const state = u.state === "ejected" ? "ejected, " + duration(u.ejected_for_seconds) + " more" : u.state;
      return [[u.name, "name"], u.address, [state, kinds[u.state] || "warn"], u.weight, u.requests,
        seconds > 0.5 && old !== undefined ? number((u.requests - old) / seconds, 1) : "–",
        u.in_flight, u.idle, u.failures, u.ejections,
        u.check ? (u.check.error ? [u.check.error, "bad long"] : ["passed", "good"]) : "–"];
    }), "none in this mode");
}

function errors(s) {
  const rows = [];
  for (const [name, reasons] of Object.entries(s.counters_by)) {
    if (name === "responses_total") continue;
    for (const [reason, n] of Object.entries(reasons)) if (n > 0) rows.push([name.replace(/_total$/, ""), reason, n]);
  }
  if (s.counters.retries_total > 0) rows.push(["retries", "", s.counters.retries_total]);
  for (const [name, n] of Object.entries(s.log_dropped)) if (n > 0) rows.push(["log dropped", name, n]);
  table("errors", ["what", "reason", "#count"], rows, "none so far");
}

function configuration(c) {
  const list = get("config");
  list.replaceChildren();
  const add = (name, text, kind) => {
    const pair = document.createElement("div");
    pair.append(node("dt", name), node("dd", text, kind));
    list.append(pair);
  };
  if (!c) return add("file", "not read yet", "quiet");
  add("file", c.file);
  add("active since", moment(c.active_since));
  if (c.sha256) add("SHA-256", c.sha256);
  add("reloads", number(c.reloads_applied) + " applied, " + number(c.reloads_failed) + " refused",
    c.reloads_failed > 0 ? "warn" : "");
  if (!c.last_reload) return;
  add("last one", moment(c.last_reload) + ", asked by " + c.last_reload_asked_by);
  if (c.last_reload_errors.length === 0) return add("it was", "applied", "good");
  for (const error of c.last_reload_errors) add("refused", error, "bad");
}

// trouble adds what does not show in the configuration itself.
function trouble(s) {
  const add = (name, text) => {
    const pair = document.createElement("div");
    pair.append(node("dt", name), node("dd", text, "bad"));
    get("config").append(pair);
  };
  for (const error of s.certificate_errors) add("certificate", error);
  const u = s.upgrade;
  if (u.last_failure) add("no upgrade", [moment(u.last_failure), u.last_failure_error, u.last_failure_ended].filter(Boolean).join(", "));
}

function show(s) {
  const now = performance.now();
  const same = last && last.status.started === s.started;
  const seconds = same ? (now - last.at) / 1000 : 0;
  const state = get("state");
  state.textContent = s.state;
  state.className = "badge " + (s.state === "ready" ? "good" : "warn");
  document.title = "Atlas: " + s.state;
  get("about").textContent = s.version + " on " + s.engine.name + ", up " + duration(s.uptime_seconds) + ", process " + s.pid;
  get("about").title = s.engine.reason;
  if (!same) last = null;
  figures(s, seconds);
  upstreams(s, seconds);
  errors(s);
  table("latency", ["what", "#count", "#p50", "#p90", "#p99", "#p99.9"],
    (s.latency || []).map((l) => [[l.of, "name"], l.count, duration(l.p50), duration(l.p90), duration(l.p99), duration(l.p999)]),
    "nothing measured yet");
  table("workers",
    ["worker", "#requests", "#open", "#accepted", "#handed over", "#upstream open", "#tasks", "#panics", "#starved", "#overflows"],
    s.workers.map((w) => [w.worker, w.requests, w.open, w.accepted, w.handed_over, w.upstream_open, w.tasks,
      w.panics > 0 ? [w.panics, "bad"] : 0, w.ring_starved, w.ring_overflows]), "not started yet");
  table("listeners", ["address", "mode", "TLS"],
    s.listeners.map((l) => [l.address, l.mode, l.tls ? "yes" : "no"]), "not yet");
  table("certificates", ["file", "names", "until", "#days left"],
    s.certificates.map((c) => [[c.file, "name"], [(c.names || []).join(" "), "long"], moment(c.not_after),
      c.days_left < 14 ? [c.days_left, "bad"] : c.days_left]), "no certificate");
  configuration(s.config);
  trouble(s);
  last = { status: s, at: now };
}

async function poll() {
  const problem = get("problem");
  try {
    const response = await fetch("status");
    if (!response.ok) throw new Error("/status answers " + response.status);
    show(await response.json());
    problem.hidden = true;
  } catch (e) {
    problem.textContent = "Atlas does not answer (" + e.message + "): what is below is from before. Trying again.";
    problem.hidden = false;
    get("state").textContent = "?";
    get("state").className = "badge warn";
    document.title = "Atlas does not answer";
  }
  setTimeout(poll, interval);
}

poll();
