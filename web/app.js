// Starts the page: puts the parts together and hands each snapshot and event to those who show it.
import { authorize, request } from "./api.js";
import { follow } from "./watch.js";
import { chooseLanguage, text, translatePage } from "./text.js";
import { chooseTheme } from "./theme.js";
import { DeviceList } from "./devices.js";
import { TenantTable } from "./tenants.js";
import { EventLog } from "./events.js";
import { ShareDialog } from "./share_dialog.js";
import { askForToken } from "./token_dialog.js";
import { Timeline } from "./timeline.js";

const byId = (id) => document.getElementById(id);
const timeline = new Timeline();
const dialog = new ShareDialog(byId("share-dialog"));
const devices = new DeviceList(byId("devices"), timeline);
const tenants = new TenantTable(byId("tenants"), (name) => dialog.open(name));
const events = new EventLog(byId("events"), byId("filter"));

function show(snapshot) {
  timeline.add(snapshot);
  devices.show(snapshot);
  tenants.show(snapshot);
}

let told = ["", ""];

function showState(state, problem) {
  told = [state, problem];
  const element = byId("state");
  element.textContent = (state && text(state)) + (problem ? `: ${problem}` : "");
  element.dataset.state = state;
}

async function loadPast() {
  const span = byId("span").value;
  timeline.load(span, await request("GET", `/v1/history?span=${span}`));
  devices.redraw();
}

async function start() {
  for (;;) {
    try {
      await authorize();
      break;
    } catch (error) {
      if (error.status !== 401) throw error;
      await askForToken(byId("token-dialog"));
    }
  }
  events.add((await request("GET", "/v1/events")).events);
  await loadPast();
  // A stream that starts anew has missed what the daemon still knows.
  follow({ snapshot: show, event: (e) => events.add([e]), state: showState,
    since: () => events.newest, restarted: () => loadPast() });
}

chooseLanguage(byId("language"), () => {
  translatePage();
  showState(...told);
  devices.redraw();
  tenants.redraw();
  events.redraw();
});
chooseTheme(byId("theme"), () => devices.redraw());
byId("span").addEventListener("change", loadPast);
translatePage();
start().catch((error) => showState("lost", error.message));
