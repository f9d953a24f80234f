"use strict";
// The dashboard: draws what the server tells. Nothing here decides anything, and no text becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const POINTS_MAX = 150; // of a chart: five minutes at one every two seconds
const TIMELINE_S = 3600;
const EVENTS_MAX = 60;

const $ = (id) => document.getElementById(id);

function make(space, name, attributes, children) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes, ...children) => make(null, name, attributes, children);
const draw = (name, attributes, ...children) => make(SVG, name, attributes, children);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

const x = (longitude) => (longitude + 180) / 0.36;
const y = (latitude) => (90 - latitude) / 0.36;

function count(n) {
  return n.toLocaleString("en-GB", { maximumFractionDigits: n < 10 ? 1 : 0 });
}
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const ms = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
function lasting(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}
const clock = (unix) => new Date(unix * 1000).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" });
const nowS = () => Date.now() / 1000;

let status = null;
let traffic = { sources: [], regions: {} };
let token = "";
const rates = [];
const connects = new Map(); // by endpoint under a check: milliseconds, oldest first
let before = null;

// --- The map ---------------------------------------------------------------------------------------------------------------

function kind(region) {
  if (!region.usable || region.forced === "down") return "down";
  return region.forced === "drain" ? "drained" : "up";
}
const WORDS = { up: "answers", drained: "drained", down: "not usable" };

function shape(of) {
  if (of === "down") return draw("path", { class: "down shape", d: "M-8-8L8 8M8-8L-8 8" });
  if (of === "drained") return draw("path", { class: "drained shape", d: "M0-10L10 0L0 10L-10 0Z" });
  return draw("circle", { class: "up shape", r: 9 });
}

function drawMarkers() {
  $("markers").replaceChildren(...status.regions.map((region) => {
    const left = x(region.longitude) > 880;
    return draw("g", { class: "marker", transform: `translate(${x(region.longitude)} ${y(region.latitude)})` },
      draw("title", {}, `${region.name}: ${WORDS[kind(region)]}`),
      draw("circle", { class: "ring", r: 12 }), shape(kind(region)),
      draw("text", { x: left ? -15 : 15, y: 5, "text-anchor": left ? "end" : "start" }, region.name));
  }));
}

function drawSources() {
  const dots = traffic.sources.filter((source) => source.latitude !== null);
  $("sources").replaceChildren(...dots.map((source) =>
    draw("circle", { class: "source-dot", cx: x(source.longitude), cy: y(source.latitude), r: 3 + 22 * Math.sqrt(source.share) },
      draw("title", {}, `${source.country ?? "unknown"}: ${percent(source.share)}`))));
  const names = (() => { try { return new Intl.DisplayNames(["en"], { type: "region" }); } catch { return null; } })();
  const name = (code) => { try { return code ? names.of(code) : "unknown place"; } catch { return code; } };
  $("source-list").replaceChildren(traffic.sources.length === 0
    ? el("p", { class: "soft" }, "No queries for routes have been sampled yet.")
    : el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Country"), el("th", { scope: "col", class: "number" }, "Share"))),
      el("tbody", {}, ...traffic.sources.slice(0, 40).map((source) =>
        el("tr", {}, el("td", {}, name(source.country)), el("td", { class: "number" }, percent(source.share)))))));
}

function drawWay(explanation) {
  const { latitude, longitude } = explanation.client;
  const region = status?.regions.find((one) => one.name === explanation.chosen);
  if (latitude === null || latitude === undefined || !region) return $("way").replaceChildren();
  const [x1, y1, x2, y2] = [x(longitude), y(latitude), x(region.longitude), y(region.latitude)];
  const bend = Math.min(60, Math.hypot(x2 - x1, y2 - y1) / 4);
  $("way").replaceChildren(
    draw("path", { class: "way", d: `M${x1} ${y1}Q${(x1 + x2) / 2} ${(y1 + y2) / 2 - bend} ${x2} ${y2}` }),
    draw("circle", { class: "way-end", cx: x1, cy: y1, r: 5 }, draw("title", {}, `client ${explanation.client.address}`)));
}

// --- Explain ---------------------------------------------------------------------------------------------------------------

function place(client) {
  const parts = [client.country, client.asn ? `AS${client.asn}` : null,
    client.latitude === null || client.latitude === undefined ? null : `${client.latitude.toFixed(1)}, ${client.longitude.toFixed(1)}`];
  const known = parts.filter((part) => part).join(" · ");
  return known ? `${known} (${client.source})` : "unknown";
}

function explained(it) {
  const best = it.candidates.find((candidate) => candidate.region === it.chosen);
  const verdict = it.chosen
    ? `${it.client.address} gets ${it.chosen}: ${best?.reason ?? it.rcode}`
    : `${it.client.address} gets ${it.rcode}${it.answer.length ? ` with ${it.answer.join(", ")}` : " and no address"}`;
  const facts = [["Client network", it.client.prefix], ["Place", place(it.client)], ["Zone", it.zone ?? "none that is served here"],
    ["Route", it.route ?? "none"], ["Rule", it.rule ?? "none matched"], ["Policy", it.policy ?? "–"], ["Answer", it.answer.join(", ") || it.rcode],
    ["TTL", it.ttl === null ? "–" : `${it.ttl} s`], ["ECS scope", it.scope === null ? "–" : `/${it.scope}`]];
  const next = it.candidates.find((candidate) => candidate.region === it.next);
  const row = (candidate) => el("tr", candidate.region === it.chosen ? { class: "chosen" } : {},
    el("th", { scope: "row" }, candidate.region), el("td", { class: "number" }, ms(candidate.estimate_ms)),
    el("td", {}, [candidate.source ?? "–", candidate.samples ? `${candidate.samples} samples` : null].filter((part) => part).join(", ")),
    el("td", { class: "number" }, candidate.distance_km === null ? "–" : `${count(Math.round(candidate.distance_km))} km`),
    el("td", {}, candidate.forced ? `${candidate.healthy ? "healthy" : "not healthy"}, forced ${candidate.forced}` : candidate.healthy ? "healthy" : "not healthy"),
    el("td", {}, candidate.reason));
  const head = ["Region", "Estimate", "From", "Distance", "Health", "Why"].map((text, n) =>
    el("th", { scope: "col", class: n === 1 || n === 3 ? "number" : null }, text));
  return [
    el("p", { class: "verdict" }, `${verdict}.`, next ? ` If ${it.chosen} dies: ${next.region}, ${ms(next.estimate_ms)}.` : it.chosen ? ` If ${it.chosen} dies, no other can answer.` : ""),
    it.candidates.length ? el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Candidates" },
      el("table", {}, el("caption", {}, "Candidates, best first"), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...it.candidates.map(row)))) : null,
    el("dl", { class: "facts" }, ...facts.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text)))),
  ].filter((part) => part);
}

async function explain(event) {
  event?.preventDefault();
  const asked = new URLSearchParams(new FormData($("explain")));
  history.replaceState(null, "", `#${asked}`);
  const box = $("explanation");
  try {
    const reply = await fetch(`/api/v1/explain?${asked}`);
    const body = await reply.json();
    if (!reply.ok) throw new Error(body.error);
    box.replaceChildren(...explained(body));
    drawWay(body);
  } catch (error) {
    $("way").replaceChildren();
    box.replaceChildren(el("p", { class: "error" }, error.message));
  }
}

// --- Regions ---------------------------------------------------------------------------------------------------------------

const keyOf = (endpoint) => `${endpoint.endpoint} ${endpoint.check ?? ""}`;
let drawnRegions = "";
const parts = new Map(); // by region, and by region, endpoint and check: the nodes that change

function buildRegions() {
  const shapeOfAll = JSON.stringify(status.regions.map((region) => [region.name, region.endpoints.map(keyOf)]));
  if (shapeOfAll === drawnRegions) return;
  drawnRegions = shapeOfAll;
  parts.clear();
  $("regions").replaceChildren(...status.regions.map((region) => {
    const own = { pill: el("span", { class: "pill" }), about: el("p", { class: "soft" }), bar: draw("rect", { height: 10, width: 0 }), share: el("p") };
    parts.set(region.name, own);
    const rows = region.endpoints.map((endpoint) => {
      const row = { state: el("td"), connect: el("td", { class: "number" }), last: el("td"),
        line: draw("svg", { class: "timeline", viewBox: `0 0 ${TIMELINE_S} 10`, preserveAspectRatio: "none", role: "img", "aria-label": "" }),
        chart: draw("svg", { class: "chart", viewBox: "0 0 300 60", preserveAspectRatio: "none", role: "img", "aria-label": "" }) };
      parts.set(`${region.name} ${keyOf(endpoint)}`, row);
      return el("tbody", {},
        el("tr", {}, el("th", { scope: "row" }, el("code", {}, endpoint.endpoint)), el("td", {}, endpoint.check ?? "not checked"), row.state, row.connect, row.last,
          el("td", {}, el("button", { type: "button", "aria-label": `Change ${region.name}/${endpoint.endpoint}`, click: () => ask(region.name, endpoint.endpoint) }, "…"))),
        endpoint.check ? el("tr", {}, el("td", { colspan: 3 }, row.line), el("td", { colspan: 3 }, row.chart)) : null);
    });
    const head = ["Endpoint", "Check", "State", "Connect", "Newest result", "Change"].map((text, n) => el("th", { scope: "col", class: n === 3 ? "number" : null }, text));
    return el("article", { class: "card", "aria-label": region.name },
      el("h3", {}, region.name, own.pill, el("button", { type: "button", "aria-label": `Change region ${region.name}`, click: () => ask(region.name) }, "Change…")),
      own.about, own.share,
      el("div", { class: "share", "aria-hidden": "true" }, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" }, own.bar)),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Endpoints of ${region.name}` },
        el("table", {}, el("caption", {}, "Endpoints; below each, its last hour and its connect times since this page was opened"), el("thead", {}, el("tr", {}, ...head)), ...rows)));
  }));
}

function shareOf(name) {
  const answers = status.queries.answers_by_region;
  const sum = Object.values(answers).reduce((a, b) => a + b, 0);
  return sum ? (answers[name] ?? 0) / sum : 0;
}

function updateRegions() {
  buildRegions();
  for (const region of status.regions) {
    const own = parts.get(region.name);
    put(own.pill, region.forced ? `${WORDS[kind(region)]}, forced ${region.forced}` : WORDS[kind(region)]);
    own.pill.setAttribute("class", `pill ${kind(region)}`);
    const up = region.endpoints.filter((endpoint) => endpoint.state === "up").length;
    const forced = region.forced ? ` · ${region.forced_reason || "no reason given"}${region.forced_until ? `, until ${clock(region.forced_until)}` : ""}` : "";
    put(own.about, `${region.location} · ${up} of ${region.endpoints.length} endpoints up${forced}`);
    put(own.share, `${percent(shareOf(region.name))} of all answers`);
    own.bar.setAttribute("width", 100 * shareOf(region.name));
    for (const endpoint of region.endpoints) updateEndpoint(parts.get(`${region.name} ${keyOf(endpoint)}`), endpoint, region.name);
  }
}

// How the servers of a cluster see an endpoint, where they do not all see it up.
function seenBy(endpoint) {
  const seen = endpoint.seen ?? [];
  if (seen.every((by) => by.state === "up")) return null;
  const all = seen.map((by) => `${by.node}: ${by.state}${by.counts || by.state === "untried" ? "" : ", does not count"}`).join("; ");
  return `${endpoint.consensus ?? "by its own view"} (${all})`;
}

function updateEndpoint(row, endpoint, region) {
  const notes = [endpoint.decided ? null : "not probed yet", endpoint.in_doubt && endpoint.decided ? "in doubt" : null, endpoint.kept ? "kept" : null,
    endpoint.forced ? `forced ${endpoint.forced}` : null].filter((note) => note);
  put(row.state, notes.length ? `${endpoint.state} (${notes.join(", ")})` : endpoint.state);
  put(row.connect, ms(endpoint.connect_ms));
  put(row.last, [seenBy(endpoint), endpoint.last_result ?? "–"].filter((part) => part).join(" · "));
  const key = `${region} ${keyOf(endpoint)}`;
  const points = connects.get(key) ?? [];
  const changed = drawTimeline(row.line, endpoint);
  row.line.setAttribute("aria-label", `Last hour: ${changed}`);
  row.chart.setAttribute("aria-label", `Connect time: ${ms(endpoint.connect_ms)}, lowest of the last hour ${ms(endpoint.baseline_ms)}`);
  const top = Math.max(1, ...points, endpoint.baseline_ms ?? 0) * 1.15;
  const at = endpoint.baseline_ms === null ? null : 60 - (60 * endpoint.baseline_ms) / top;
  row.chart.replaceChildren(...[at === null ? null : draw("path", { class: "base", d: `M0 ${at}H300` }), line(points, top)].filter((part) => part));
}

function drawTimeline(node, endpoint) {
  const [end, begin] = [nowS(), nowS() - TIMELINE_S];
  const segments = [];
  let to = end;
  let state = endpoint.decided ? endpoint.state : "untried";
  for (const change of [...endpoint.history].reverse()) {
    if (to <= begin) break;
    segments.push([Math.max(begin, change.at), to, state]);
    [to, state] = [change.at, change.from];
  }
  if (to > begin) segments.push([begin, to, endpoint.history.length ? state : endpoint.decided ? endpoint.state : "untried"]);
  node.replaceChildren(...segments.map(([from, until, of]) =>
    draw("rect", { class: of, x: from - begin, width: Math.max(1, until - from), height: 10 }, draw("title", {}, `${of} ${clock(from)} to ${clock(until)}`))));
  const changes = endpoint.history.filter((change) => change.at > begin);
  return changes.length ? changes.map((change) => `${change.to} at ${clock(change.at)}`).join("; ") : `${endpoint.state} throughout`;
}

function line(points, top) {
  if (points.length < 2) return null;
  const step = 300 / (POINTS_MAX - 1);
  const start = 300 - step * (points.length - 1);
  return draw("path", { d: points.map((value, n) => `${n ? "L" : "M"}${(start + n * step).toFixed(1)} ${(60 - (58 * value) / top).toFixed(1)}`).join("") });
}

// --- Counters, events, the server --------------------------------------------------------------------------------------------

function updateCounters() {
  const { queries } = status;
  const at = performance.now();
  let rate = null;
  if (before && queries.total >= before.total && at > before.at) rate = (1000 * (queries.total - before.total)) / (at - before.at);
  if (rate !== null && at - before.at > 1500) {
    rates.push(rate);
    if (rates.length > POINTS_MAX) rates.shift();
  }
  if (!before || at - before.at > 1500) before = { total: queries.total, at };
  const share = (part) => (queries.total ? percent(part / queries.total) : "–");
  const rows = [["Queries a second", rates.length ? count(rates.at(-1)) : "–"], ["Queries", count(queries.total)],
    ...Object.entries(queries.responses).map(([code, n]) => [code, count(n)]), ["With client subnet", share(queries.ecs)],
    ["By TCP", share(queries.by_transport.tcp ?? 0)], ["TCP connections", count(queries.tcp_connections)], ["Truncated", count(queries.truncated)], ["Dropped", count(queries.dropped)]];
  $("counters").replaceChildren(...rows.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))));
  $("rate").replaceChildren(...[line(rates, Math.max(1, ...rates) * 1.1)].filter((part) => part));
}

function updateEvents() {
  const all = [];
  for (const region of status.regions) {
    for (const endpoint of region.endpoints) {
      for (const change of endpoint.history) {
        all.push([change.at, `${region.name}/${endpoint.endpoint}: ${change.from} → ${change.to}`, change.reason]);
      }
    }
  }
  for (const one of status.overrides) all.push([one.since, `${one.target}: forced ${one.state} by ${one.by}${one.node ? ` on ${one.node}` : ""}`, one.reason || "no reason given"]);
  if (status.reload.last_success) all.push([status.reload.last_success, "configuration taken up", status.config]);
  all.sort((a, b) => b[0] - a[0]);
  $("events").replaceChildren(...(all.length ? all.slice(0, EVENTS_MAX).map(([at, what, why]) =>
    el("li", {}, el("time", { class: "soft", datetime: new Date(at * 1000).toISOString() }, clock(at)), " ", el("strong", {}, what), el("br"), why))
    : [el("li", { class: "soft" }, "Nothing yet.")]));
  if (all.length > 6) $("events").setAttribute("tabindex", "0");
}

function updateServer() {
  const data = status.location_data;
  const facts = [["Listening on", status.listen.join(", ")], ["Configuration", status.config], ["Up for", lasting(status.uptime_s)], ["Snapshot", count(status.generation)],
    ["Location data", data.source], ["Networks", `${count(data.networks_v4)} IPv4, ${count(data.networks_v6)} IPv6`],
    ["Reloads", `${status.reload.succeeded} taken up, ${status.reload.failed} refused`],
    ["Zones", status.zones.map((zone) => `${zone.name} (serial ${zone.serial}, ${zone.routes.length} routes)`).join(", ")]];
  const cluster = status.cluster;
  if (cluster) facts.push(["Cluster", `${cluster.node}, ${1 + cluster.nodes.filter((node) => node.counts).length} of ${1 + cluster.nodes.length} servers count, ${cluster.connected ? `connected to ${cluster.server}` : "not connected"}`]);
  if (status.identity) facts.unshift(["Name", status.identity]);
  $("server").replaceChildren(...facts.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))));
}

function updateAlerts() {
  const alerts = [];
  const lost = status.regions.filter((region) => kind(region) === "down");
  if (lost.length === status.regions.length) alerts.push(["", "No region is usable: answers are given blindly or refused, as `when-all-down` says."]);
  else for (const region of lost) alerts.push(["", `${region.name} is not usable; its clients are in other regions.`]);
  if (status.self_doubt) alerts.push(["mild", `The prober distrusts itself since ${clock(status.self_doubt.since)}: ${status.self_doubt.reason}. The last verdicts stay.`]);
  const cluster = status.cluster;
  if (cluster && !cluster.connected) alerts.push(["mild", `Not connected to NATS, so that this server goes by its own view: ${cluster.error ?? "connecting"}.`]);
  if (cluster?.problem) alerts.push(["mild", `The cluster: ${cluster.problem}.`]);
  for (const node of cluster?.nodes ?? []) if (!node.counts && cluster.connected) alerts.push(["mild", `${node.name} has not been heard for ${lasting(node.heard_s)}; its view does not count.`]);
  for (const one of status.overrides) for (const conflict of one.conflicts ?? []) alerts.push(["mild", `${one.target} ${one.state} overrode, without knowing of it: ${conflict}`]);
  if (status.reload.error) alerts.push(["mild", `The newest reload was refused, the configuration before serves on: ${status.reload.error}`]);
  for (const region of status.regions) for (const endpoint of region.endpoints) for (const warning of endpoint.warnings) alerts.push(["mild", `${region.name}/${endpoint.endpoint}: ${warning}`]);
  const drawn = alerts.map(([, text]) => text).join("\n");
  if ($("alerts").dataset.drawn !== drawn) {
    $("alerts").dataset.drawn = drawn;
    $("alerts").replaceChildren(...alerts.map(([how, text]) => el("p", { class: `alert ${how}`, role: "alert" }, text)));
  }
  const usable = status.regions.length - lost.length;
  put($("summary"), `${usable} of ${status.regions.length} regions usable${status.ready ? "" : ", first probe round under way"}`);
  document.title = `${lost.length ? `(${lost.length} down) ` : ""}isochrone`;
}

// --- Overrides -------------------------------------------------------------------------------------------------------------

const STATES = { drain: "drain: answers only when no other region can", down: "down: never answers", up: "up: counts as healthy whatever the checks say", auto: "auto: the checks decide" };

function ask(region, endpoint) {
  const dialog = $("confirm");
  const form = dialog.querySelector("form");
  const target = endpoint ? `${region}/${endpoint}` : region;
  const chooser = el("select", { name: "state" }, ...Object.entries(STATES).map(([value, text]) => el("option", { value }, text)));
  $("confirm-text").replaceChildren(el("label", {}, `What is to become of ${target}`, chooser));
  put($("confirm-error"), "");
  $("token-field").hidden = token === "" && !dialog.dataset.needsToken;
  form.elements.token.value = token;
  form.onsubmit = async (event) => {
    if (event.submitter?.value !== "go") return;
    event.preventDefault();
    token = form.elements.token.value;
    const path = endpoint ? `/endpoints/${encodeURIComponent(endpoint)}` : "";
    const body = { state: chooser.value, reason: form.elements.reason.value };
    if (form.elements.for.value && chooser.value !== "auto") body.for = form.elements.for.value;
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    try {
      const reply = await fetch(`/api/v1/regions/${encodeURIComponent(region)}${path}/force`, { method: "POST", headers, body: JSON.stringify(body) });
      const answer = await reply.json();
      if (reply.status === 401 || reply.status === 403) {
        dialog.dataset.needsToken = "yes";
        $("token-field").hidden = false;
      }
      if (!reply.ok) throw new Error(answer.error);
      dialog.close();
    } catch (error) {
      put($("confirm-error"), error.message);
    }
  };
  dialog.showModal();
}

// --- The stream ------------------------------------------------------------------------------------------------------------

function take(event) {
  status = JSON.parse(event.data);
  for (const region of status.regions) {
    for (const endpoint of region.endpoints) {
      if (endpoint.connect_ms === null) continue;
      const key = `${region.name} ${keyOf(endpoint)}`;
      const points = connects.get(key) ?? [];
      points.push(endpoint.connect_ms);
      if (points.length > POINTS_MAX) points.shift();
      connects.set(key, points);
    }
  }
  put($("version"), status.version);
  updateAlerts();
  drawMarkers();
  updateRegions();
  updateCounters();
  updateEvents();
  updateServer();
  const name = $("explain").elements.name;
  const zone = status.zones.find((one) => one.routes.length);
  if (!name.value && document.activeElement !== name && zone) {
    const owner = zone.routes[0] === "@" ? "" : `${zone.routes[0].replace(/^\*/, "www")}.`;
    name.value = `${owner}${zone.name}`.replace(/\.$/, "");
  }
}

function listen() {
  const stream = new EventSource("/api/v1/events");
  const say = (text, how) => { put($("live"), text); $("live").setAttribute("class", `pill ${how}`); };
  let silence = 0;
  stream.addEventListener("open", () => { clearTimeout(silence); say("live", "up"); });
  stream.addEventListener("status", take);
  stream.addEventListener("traffic", (event) => { traffic = JSON.parse(event.data); drawSources(); });
  stream.addEventListener("error", () => {
    // The server ends a stream now and then, and the browser comes back by itself.
    clearTimeout(silence);
    silence = setTimeout(() => say("not connected", "down"), 4000);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

$("explain").addEventListener("submit", explain);
$("confirm-cancel").addEventListener("click", () => $("confirm").close());
const asked = new URLSearchParams(location.hash.slice(1));
for (const field of ["name", "client", "type"]) {
  if (asked.get(field)) $("explain").elements[field].value = asked.get(field);
}
listen();
if (asked.get("name")) explain();
