// The log of what happened: refusals, what the audit found, shares that came, changed and went.
import { make } from "./dom.js";
import { time } from "./format.js";
import { text } from "./text.js";

const MOST = 500; // in the page; divvyd keeps more
const REFUSALS = new Set(["out_of_share", "device_full", "foreign_device", "driver_refused", "denied", "no_room"]);
const AUDIT = new Set(["no_hello", "beyond_charges", "beyond_share", "foreign_device", "scribbled", "garbage_markers",
  "gpu_time_unseen", "overrun", "bad_hello", "foreign_process", "foreign_user", "degraded", "device_fault"]);

export class EventLog {
  constructor(list, filter) {
    this.list = list;
    this.filter = filter;
    this.events = [];
    this.newest = 0;
    filter.addEventListener("change", () => this.redraw());
  }

  add(events) {
    // A daemon that has started anew counts anew.
    const fresh = events.filter((e) => e.seq > this.newest || e.seq < this.newest - 4096);
    if (fresh.length === 0) return;
    this.newest = fresh.at(-1).seq;
    this.events = this.events.concat(fresh).slice(-MOST);
    this.redraw();
  }

  wanted(event) {
    if (this.filter.value === "refusals") return REFUSALS.has(event.cause);
    return this.filter.value !== "audit" || AUDIT.has(event.cause);
  }

  redraw() {
    const rows = this.events.filter((e) => this.wanted(e)).reverse().map((e) => {
      const kind = REFUSALS.has(e.cause) ? "bad" : AUDIT.has(e.cause) ? "warn" : "";
      return make("li", {}, make("time", { datetime: new Date(e.time * 1000).toISOString() }, time(e.time)),
        make("span", { class: `tag ${kind}` }, text(`cause_${e.cause}`)),
        make("strong", {}, e.tenant), make("span", {}, e.message));
    });
    this.list.replaceChildren(...(rows.length ? rows : [make("li", { class: "empty" }, text("noEvents"))]));
  }
}
