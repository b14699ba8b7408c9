// The page: which of its parts shows, who is signed in, and the list of batches. The rest is in the modules beside it.

import { isChoice, showAccounts, showWhere } from "/page/accounts.js";
import { closeBatch, listed, openBatch, setRoles, setSent, startBatch } from "/page/batch.js";
import { byId, count, say, show } from "/page/elements.js";
import { setHeldServer } from "/page/held.js";
import { address, listAddress, showList, startList } from "/page/list.js";
import { openLog, startLog } from "/page/log.js";
import { forgetAll, forgetToken, forgetWork, forgetWorkElsewhere, get, isSignedIn, NeedsToken, setToken } from "/page/http.js";
import { forgetDraft, isUnderWork, openNew, setServer, startNew, takeAgain } from "/page/new.js";

const LIST_EVERY_MS = 3000;
const PAGES = ["accounts", "home", "new", "batch", "log", "nowhere"];

// Who is signed in, and what they may do; nobody before the server said so.
let caller = null;
const may = (role) => !caller || caller.roles.includes(role);

function notice(words, by = "") {
  say("notice", words);
  show("notice", Boolean(words));
  byId("notice").dataset.by = by;
}

// Runs what needs the server; says what is wrong where it fails, and asks for a token where one is needed. What went
// wrong `by` one thing is not hidden because another went well.
async function attempt(action, by = "user") {
  try {
    await action();
    if (byId("notice").dataset.by === by) notice("");
  } catch (error) {
    if (error instanceof NeedsToken) return askForToken(error);
    notice(error.message, by);
  }
}

// The first time nothing was wrong: a token is simply needed.
function askForToken(error) {
  const wasSignedIn = isSignedIn();
  // Of two questions that were under way at once the second must not take away what the first one's answer said.
  if (!wasSignedIn && !byId("sign-in").hidden) return;
  forgetToken();
  // What a dialog asks cannot be answered any more; and whoever signs in may be somebody else.
  if (byId("sure").open) byId("sure").close("no");
  show("sign-in", true);
  show("sign-out", false);
  show("who-am-i", false);
  for (const page of PAGES) show(page, false);
  closeBatch();
  const why = `${error.message[0].toUpperCase()}${error.message.slice(1)}`;
  notice(wasSignedIn ? `${why}. Sign in again${isUnderWork() ? ", and go on: what you mended here is still there" : ""}.` : "", "sign-in");
  byId("token").value = "";
  byId("token").focus();
}

// Whether somebody else is signed in than whose work and lists stand on this page.
function isSomebodyElse(view) {
  return caller !== null && caller.name !== view.name;
}

// Nothing of theirs is shown, kept or sent by whoever came after them. Never resolves: the page begins anew.
function beginAnew() {
  forgetDraft();
  forgetWork();
  location.reload();
  return new Promise(() => {});
}

function showCaller(view) {
  caller = view;
  showWhere(view);
  setRoles(may, view.name);
  show("nav-log", ["operate", "approve", "audit"].some(may));
  show("may-not-read", !may("read"));
  show("sign-out", isSignedIn());
  const until = view.expires_ms === null ? "" : `, until ${new Date(view.expires_ms).toLocaleDateString()}`;
  show("who-am-i", isSignedIn());
  say("who-am-i", `${view.name}${until}`);
}

function showServer(server) {
  setServer(server, may);
  setHeldServer(server);
  const mode = { live: "live cards", test: "test cards", sandbox: "sandbox: no card is real" }[server.mode];
  const pace = server.pace_per_second < server.pace_configured_per_second
    ? `${count(server.pace_per_second)} of ${count(server.pace_configured_per_second)} calls a second`
    : `${count(server.pace_per_second)} calls a second`;
  const trouble = server.stopped ? ` — stopped: ${server.stopped}` : server.stripe_down ? " — Stripe does not answer"
    : server.waits_for ? ` — waiting: ${server.waits_for}` : server.warning ? ` — ${server.warning}` : "";
  say("server", `${mode}, ${pace}${trouble}`);
  showAwaited(server.pins_awaited ?? {});
  byId("server").className = server.mode === "live" ? "server live" : "server";
}

// How many cardholders have not chosen their PIN yet, by how long ago they were asked.
function showAwaited({ hour, day, week, older }) {
  const ages = [[hour, "for less than an hour"], [day, "for less than a day"], [week, "for less than a week"], [older, "for longer"]];
  const waiting = ages.filter(([jobs]) => jobs).map(([jobs, since]) => `${count(jobs)} ${since}`);
  say("awaited", waiting.length ? `Waiting for a PIN: ${waiting.join(", ")}` : "");
  show("awaited", waiting.length > 0);
}

// The page that an address means, and the batch in it.
function meant(hash) {
  if (isChoice(caller)) return ["accounts"];
  if (["", "#", "#/"].includes(hash)) return ["home"];
  const [isNew, into, retries] = /^#\/new(?:\?into=([^&]*)(&retry)?)?$/.exec(hash) ?? [];
  if (isNew) return ["new", decoded(into ?? ""), Boolean(retries)];
  const [isLog, about] = /^#\/log(?:\?batch=(.*))?$/.exec(hash) ?? [];
  if (isLog) return ["log", decoded(about ?? "")];
  const [, batch] = /^#\/batches\/(.+)$/.exec(hash) ?? [];
  const name = batch && decoded(batch);
  return name ? ["batch", name] : ["nowhere"];
}

// A name in an address; nothing where a percent sign begins no letter.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function route() {
  if (!byId("sign-in").hidden) return;
  const [page, batch, retries] = meant(location.hash);
  for (const each of PAGES) show(each, each === page);
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  closeBatch();
  document.title = { accounts: "Accounts · embosser", home: "Batches · embosser", new: "New batch · embosser", log: "Who did what · embosser" }[page] ?? "embosser";
  if (page === "log") openLog(batch);
  if (page === "new") openNew(batch, retries);
  if (page === "batch") openBatch(batch);
}

// Asked once a sign-in is wanted, and every few seconds.
async function refresh() {
  if (byId("sign-in").hidden && !document.hidden) {
    await attempt(async () => {
      const view = await get("/v1/me");
      if (isSomebodyElse(view)) return beginAnew();
      showCaller(view);
      if (isChoice(view)) return showAccounts((await get("/v1/accounts")).accounts);
      showServer(await get("/v1/server"));
      if (!may("read")) return;
      const isSeen = meant(location.hash)[0] === "home";
      const asked = listAddress(isSeen);
      const list = await get(asked);
      // Somebody may look for others by now, or elsewhere.
      if (isSeen && asked === listAddress(isSeen)) showList(list);
      listed(list.batches);
    }, "refresh");
  }
}

async function refreshEver() {
  await refresh();
  setTimeout(refreshEver, LIST_EVERY_MS);
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  notice("");
  // Nothing is shown before it is known to whom.
  await attempt(async () => {
    const view = await get("/v1/me");
    if (isSomebodyElse(view)) return beginAnew();
    byId("token").value = "";
    show("sign-in", false);
    showCaller(view);
  });
  if (!byId("sign-in").hidden) return;
  await refresh();
  route();
});
byId("sign-out").addEventListener("click", () => {
  forgetAll();
  location.reload();
});
// To the content without another address: that is a page's.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
window.addEventListener("hashchange", () => {
  // What a dialog asks is about the page on which it was opened.
  if (byId("sure").open) byId("sure").close("no");
  notice("");
  route();
  byId(`${meant(location.hash)[0]}-title`)?.focus();
  // What was just done on a batch's page is seen in the list at once.
  if (meant(location.hash)[0] === "home") refresh();
});
forgetWorkElsewhere();
startBatch(attempt, (name, file, retries) => {
  takeAgain(name, file, retries);
  location.hash = name ? `#/new?into=${encodeURIComponent(name)}${retries ? "&retry" : ""}` : "#/new";
});
startList(refresh);
startLog(attempt);
startNew(attempt, (view) => {
  setSent(view);
  location.hash = address(view.batch);
});
await refresh();
route();
refreshEver();
