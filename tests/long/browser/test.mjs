// Clicks every feature of the dashboard in a real browser, on a server that this starts with real endpoints, and leaves screenshots.
//
//     node test.mjs BINARY FOLDER      # FOLDER takes screenshots; chromium is Debian's
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import dgram from "node:dgram";
import { chromium } from "playwright-core";

const [binary, folder] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 20_000;

async function until(what, test) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await test();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Three endpoints on loopback, each of which can be made to fail.
const healthy = { us: true, eu: true, ap: true };
const listening = (name) => new Promise((resolve) => {
  const server = createServer((_, reply) => { reply.statusCode = healthy[name] ? 200 : 500; reply.end(name); });
  server.listen(0, { us: "127.0.0.2", eu: "127.0.0.3", ap: "127.0.0.4" }[name], () => resolve(server));
});
const servers = { us: await listening("us"), eu: await listening("eu"), ap: await listening("ap") };
const work = mkdtempSync(join(tmpdir(), "isochrone-browser-"));
const check = (name) => `[checks.${name}]\ntype = "http"\nport = ${servers[name].address().port}\ninterval = "1s"\nfast-interval = "500ms"\n`;
const region = (name, place) => `[regions.${name}]\nlocation = "${place}"\nendpoints = ["${servers[name].address().address}"]\ncheck = "${name}"\n`;
writeFileSync(join(work, "isochrone.toml"), `[server]\nlisten = ["127.0.0.1:0"]\nidentity = "browser-test"\n[admin]\nlisten = "127.0.0.1:0"\n`
  + check("us") + check("eu") + check("ap") + region("us", "aws:us-east-1") + region("eu", "aws:eu-central-1") + region("ap", "aws:ap-southeast-1")
  + `[zones."geo.example"]\nnameservers = ["ns1.example.net."]\n[zones."geo.example".routes."*.app"]\n`);
const server = spawn(binary, ["--log-format", "json", "serve", "--config", join(work, "isochrone.toml")], { stdio: ["ignore", "ignore", "pipe"] });
let log = "";
server.stderr.on("data", (bytes) => { log += bytes; });
let browser = null;

function query(client) {
  const label = (text) => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)]);
  const name = Buffer.concat([..."www.app.geo.example".split(".").map(label), Buffer.from([0])]);
  const subnet = Buffer.from([0, 8, 0, 7, 0, 1, 24, 0, ...client]);
  return Buffer.concat([Buffer.from([1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]), name, Buffer.from([0, 1, 0, 1]),
    Buffer.from([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, subnet.length]), subnet]);
}

try {
  const ready = JSON.parse((await until("the server is ready", () => log.split("\n").find((line) => line.includes('"message":"ready"')))));
  const [dns, admin] = [ready.listen.split(" ")[0].split(",")[0], ready.admin];
  const socket = dgram.createSocket("udp4");
  const [host, port] = [dns.split(":")[0], Number(dns.split(":")[1])];
  for (let n = 0; n < 40; n += 1) {
    for (const client of [[81, 2, 69], [8, 8, 8], [202, 12, 29], [200, 160, 2]]) {
      for (let m = 0; m < 8; m += 1) socket.send(query(client), port, host);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }

  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
  const context = await browser.newContext({ viewport: { width: 1360, height: 1000 }, colorScheme: "light" });
  const page = await context.newPage();
  const faults = [];
  const expected = new Set();
  page.on("console", (message) => { if (message.type() === "error" && ![...expected].some((part) => message.text().includes(part))) faults.push(message.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(`http://${admin}/`)) faults.push(`asks elsewhere: ${request.url()}`); });
  await page.goto(`http://${admin}/`);
  const text = (selector) => page.locator(selector).innerText();
  await until("all regions are usable", async () => (await text("#summary")) === "3 of 3 regions usable");
  assert.equal(await page.locator("#markers .marker").count(), 3);
  await until("samples are on the map", async () => (await page.locator("#sources circle").count()) >= 3);
  await page.locator("section details summary").first().click();
  assert.match(await text("#source-list"), /United Kingdom/);
  assert.match(await text("#server"), /browser-test/);

  // The explain box, by keyboard alone.
  await page.locator("#explain input[name=client]").focus();
  await page.keyboard.type("81.2.69.7");
  await page.keyboard.press("Enter");
  await until("the explanation", async () => /81\.2\.69\.7 gets eu/.test(await text("#explanation")));
  assert.match(await text("#explanation"), /If eu dies: us/);
  assert.equal(await page.locator("#way path").count(), 1);
  assert.match(page.url(), /client=81\.2\.69\.7/);
  await page.locator("#explain input[name=client]").fill("nonsense");
  expected.add("400 (Bad Request)");
  await page.locator("#explain button").click();
  await until("what is wrong with it", async () => /nonsense/.test(await text("#explanation .error")));
  await page.locator("#explain input[name=client]").fill("81.2.69.7");
  await page.locator("#explain button").click();
  await until("the explanation once more", async () => (await page.locator("#explanation tr.chosen").count()) === 1);
  await page.screenshot({ path: join(folder, "dashboard.png"), fullPage: true, clip: { x: 0, y: 0, width: 1360, height: 1400 } });

  // A failure is shown within moments, and its end.
  healthy.eu = false;
  await until("eu is down", async () => /eu is not usable/.test(await text("#alerts")));
  await until("the event", async () => /eu\/127\.0\.0\.3: up → down/.test(await text("#events")));
  await page.locator("#explain button").click();
  await until("its clients go elsewhere", async () => /81\.2\.69\.7 gets us/.test(await text("#explanation")));
  await page.screenshot({ path: join(folder, "dashboard-down.png"), fullPage: true });
  healthy.eu = true;
  await until("eu is back", async () => (await text("#summary")) === "3 of 3 regions usable");

  // Overrides, with confirmation, and back out of it.
  const change = (target) => page.getByRole("button", { name: target, exact: true });
  await change("Change region ap").click();
  await page.locator("#confirm-cancel").click();
  await change("Change region ap").click();
  await page.locator("#confirm select[name=state]").selectOption("drain");
  await page.locator("#confirm input[name=reason]").fill("new switch");
  await page.locator("#confirm-go").click();
  await until("ap is drained", async () => /drained, forced drain/.test(await page.locator("article[aria-label=ap]").innerText()));
  assert.match(await page.locator("article[aria-label=ap]").innerText(), /new switch/);
  // What is drained comes after all others: a client near it, whose region would die next.
  await page.locator("#explain input[name=client]").fill("202.12.29.7");
  await page.locator("#explain button").click();
  await until("the region after next", async () => /202\.12\.29\.7 gets (us|eu).* If \1 dies: (eu|us),/.test(await text("#explanation")));
  await until("the audit", async () => /ap: forced drain by/.test(await text("#events")));
  await change("Change region ap").click();
  await page.locator("#confirm select[name=state]").selectOption("auto");
  await page.locator("#confirm-go").click();
  await until("ap answers again", async () => !/forced/.test(await page.locator("article[aria-label=ap] .pill").innerText()));
  await change("Change us/127.0.0.2").click();
  await page.locator("#confirm select[name=state]").selectOption("down");
  await page.locator("#confirm-go").click();
  await until("the endpoint is forced down", async () => /forced down/.test(await page.locator("article[aria-label=us] tbody").first().innerText()));
  await change("Change us/127.0.0.2").click();
  await page.locator("#confirm select[name=state]").selectOption("auto");
  await page.locator("#confirm-go").click();
  await until("it is not any more", async () => (await text("#summary")) === "3 of 3 regions usable");

  // The page stays up to date for longer than one stream lasts.
  await until("charts have points", async () => (await page.locator("article .chart path").count()) >= 3);
  await new Promise((resolve) => setTimeout(resolve, 55_000));
  const total = () => page.locator("#counters div").filter({ hasText: "Queries" }).nth(1).locator("dd").innerText();
  const beforeTotal = await total();
  socket.send(query([8, 8, 8]), port, host);
  await until("counters go on", async () => (await total()) !== beforeTotal);
  assert.equal(await text("#live"), "live");

  // For everybody: three sizes, light and dark, nothing that axe finds.
  for (const [name, viewport, colorScheme] of [["wide", { width: 1360, height: 1000 }, "light"], ["dark", { width: 1360, height: 1000 }, "dark"],
    ["tablet", { width: 820, height: 1100 }, "light"], ["phone", { width: 390, height: 844 }, "dark"]]) {
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(folder, `dashboard-${name}.png`), fullPage: true });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${name}: ${overflow} pixels too wide`);
    const found = await page.evaluate(`(() => { const module = undefined; ${axe}; return axe.run(); })()`);
    assert.deepEqual(found.violations.map((one) => `${name}: ${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`), []);
  }
  assert.deepEqual(faults, []);
  socket.close();
  console.log("dashboard: every feature clicked, axe-core finds nothing, no console error");
} catch (error) {
  console.error(log.split("\n").slice(-8).join("\n"));
  throw error;
} finally {
  await browser?.close();
  server.kill("SIGTERM");
  Object.values(servers).forEach((one) => one.close());
  rmSync(work, { recursive: true, force: true });
}
process.exit(0);
