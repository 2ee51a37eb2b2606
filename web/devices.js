// The devices: what of each is used, promised and free, and its timelines.
import { make, setText } from "./dom.js";
import { makeBar } from "./bar.js";
import { Chart } from "./chart.js";
import { colorOf } from "./colors.js";
import { bytes, percent } from "./format.js";
import { text } from "./text.js";

class DeviceCard {
  constructor(device) {
    this.uuid = device.uuid;
    this.title = make("h3");
    this.health = make("p", { class: "sick", role: "alert", hidden: true });
    this.facts = make("p", { class: "facts" });
    this.bar = makeBar();
    this.computeTitle = make("h4");
    this.memoryTitle = make("h4");
    const compute = make("div", { class: "chart", role: "img" });
    const memory = make("div", { class: "chart", role: "img" });
    this.computeBox = compute;
    this.memoryBox = memory;
    this.legend = make("ul", { class: "legend" });
    this.element = make("article", { class: "device" }, this.title, this.health, this.bar.element, this.facts,
      make("div", { class: "charts" }, make("div", {}, this.computeTitle, compute), make("div", {}, this.memoryTitle, memory)),
      this.legend);
    this.compute = new Chart(compute, { max: 100, format: (v) => `${v} %` });
    this.memory = new Chart(memory, { max: device.total_bytes, format: bytes });
  }

  show(device) {
    setText(this.title, `GPU ${device.index} · ${device.name}`);
    this.health.hidden = device.health === "ok";
    setText(this.health, device.health);
    this.bar.set({ value: device.used_bytes, max: device.total_bytes, mark: device.promised_bytes,
      label: text("deviceBar", bytes(device.used_bytes), bytes(device.total_bytes), bytes(device.promised_bytes)) });
    const facts = [text("deviceBar", bytes(device.used_bytes), bytes(device.total_bytes), bytes(device.promised_bytes)),
      text("freeToPromise", bytes(device.free_to_promise_bytes)),
      text("computePromised", percent(device.compute_promised_percent))];
    if (device.outside_processes) facts.push(text("outside", device.outside_processes, bytes(device.outside_bytes)));
    if (device.leaving_bytes) facts.push(text("leaving", bytes(device.leaving_bytes)));
    setText(this.facts, facts.join(" · "));
  }

  draw(timeline, fresh) {
    setText(this.computeTitle, text("compute"));
    setText(this.memoryTitle, text("memory"));
    const [times, compute] = timeline.of(this.uuid, "compute");
    const [, memory] = timeline.of(this.uuid, "memory");
    this.compute.draw(times, compute, fresh);
    this.memory.draw(times, memory, fresh);
    this.computeBox.setAttribute("aria-label", this.latest(compute, percent));
    this.memoryBox.setAttribute("aria-label", this.latest(memory, bytes));
    this.legend.replaceChildren(...memory.map(({ tenant }) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = colorOf(tenant);
      return make("li", {}, swatch, tenant);
    }));
  }

  latest(series, format) {
    return series.map(({ tenant, values }) => {
      const value = values.at(-1);
      return `${tenant}: ${value === null || value === undefined ? "–" : format(value)}`;
    }).join(", ");
  }
}

export class DeviceList {
  constructor(parent, timeline) {
    this.parent = parent;
    this.timeline = timeline;
    this.cards = new Map();
    this.snapshot = null;
  }

  show(snapshot, fresh = false) {
    this.snapshot = snapshot;
    for (const device of snapshot.devices) {
      if (!this.cards.has(device.uuid)) {
        const card = new DeviceCard(device);
        this.cards.set(device.uuid, card);
        this.parent.append(card.element);
      }
      this.cards.get(device.uuid).show(device);
    }
    for (const card of this.cards.values()) card.draw(this.timeline, fresh);
  }

  redraw() {
    if (this.snapshot) this.show(this.snapshot, true);
  }
}
