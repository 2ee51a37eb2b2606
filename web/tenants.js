// The tenants, a row for each share: live bars of memory and compute. Rows are kept and changed in
// place, so that a keyboard's focus stays where it is.
import { make, setText } from "./dom.js";
import { makeBar } from "./bar.js";
import { colorOf } from "./colors.js";
import { bytes, percent, whole } from "./format.js";
import { text } from "./text.js";

const COLUMNS = ["tenant", "class", "gpu", "memory", "compute", "waiting", "refused", ""];

class Row {
  constructor(name, change) {
    this.swatch = make("span", { class: "swatch" });
    this.swatch.style.background = colorOf(name);
    this.tags = make("span", { class: "tags" });
    this.command = make("span", { class: "command" });
    this.memory = makeBar();
    this.compute = makeBar();
    this.memoryText = make("span", { class: "amount" });
    this.computeText = make("span", { class: "amount" });
    this.gpuTime = make("span", { class: "amount gpu-time" });
    this.button = make("button", { type: "button", on: { click: () => change(name) } });
    this.cells = Object.fromEntries(COLUMNS.map((c) => [c, make("td")]));
    this.cells.tenant.append(make("span", { class: "name" }, this.swatch, name), this.tags, this.command);
    this.cells.memory.append(this.memory.element, this.memoryText);
    this.cells.compute.append(this.compute.element, this.computeText, this.gpuTime);
    this.cells[""].append(this.button);
    this.element = make("tr", { "data-tenant": name }, ...COLUMNS.map((c) => this.cells[c]));
  }

  show(tenant, share) {
    for (const c of COLUMNS) this.cells[c].dataset.label = c ? text(c) : "";
    setText(this.cells.class, text(tenant.class));
    setText(this.cells.gpu, String(share.index));
    setText(this.command, tenant.command);
    this.tags.replaceChildren(...this.tagsOf(tenant, share).map(([tag, kind]) => make("span", { class: `tag ${kind}` }, text(tag))));
    const amount = `${bytes(share.used_bytes)} / ${bytes(share.limit_bytes)}`;
    this.memory.set({ value: share.used_bytes, max: share.limit_bytes, over: share.over, label: amount });
    setText(this.memoryText, amount);
    const used = share.used_percent_1s;
    const of = tenant.compute_percent ? text("guaranteed", percent(tenant.compute_percent)) : text("byWeight");
    const got = used !== null ? `${percent(used)} · ${of}` : text("notMetered");
    this.compute.set({ value: used, max: 100, mark: tenant.compute_percent, label: got });
    setText(this.computeText, got);
    const seconds = share.used_ns / 1e9;
    setText(this.gpuTime, share.operations ? text("gpuTime", seconds.toFixed(seconds < 100 ? 1 : 0), whole(share.operations)) : "");
    setText(this.cells.waiting, percent(share.gate_wait_percent));
    setText(this.cells.refused, String(tenant.refusals));
    this.cells.refused.classList.toggle("bad", tenant.refusals > 0);
    setText(this.button, text("change"));
    this.button.setAttribute("aria-label", text("changeOf", tenant.name));
  }

  tagsOf(tenant, share) {
    const tags = [];
    if (tenant.paused) tags.push(["paused", "warn"]);
    if (tenant.state !== "running") tags.push([tenant.state, "warn"]);
    if (tenant.waiting_for_room) tags.push(["waitsForRoom", "warn"]);
    if (share.over) tags.push(["over", "bad"]);
    if (share.gated) tags.push(["shutByAudit", "bad"]);
    if (tenant.findings) tags.push(["finding", "bad"]);
    if (share.throttled_by_cap) tags.push(["capped", ""]);
    if (tenant.cooperative) tags.push(["cooperative", ""]);
    return tags;
  }
}

export class TenantTable {
  constructor(parent, change) {
    this.change = change;
    this.rows = new Map();
    this.body = make("tbody");
    this.head = COLUMNS.map(() => make("th", { scope: "col" }));
    this.empty = make("p", { class: "empty", hidden: true });
    parent.append(make("table", {}, make("thead", {}, make("tr", {}, ...this.head)), this.body), this.empty);
    this.snapshot = null;
  }

  show(snapshot) {
    this.snapshot = snapshot;
    COLUMNS.forEach((c, i) => setText(this.head[i], c ? text(c) : ""));
    const seen = new Set();
    for (const tenant of snapshot.tenants)
      for (const share of tenant.shares) {
        const key = `${tenant.name}\n${share.device}`;
        seen.add(key);
        if (!this.rows.has(key)) {
          const row = new Row(tenant.name, this.change);
          this.rows.set(key, row);
          this.body.append(row.element);
        }
        this.rows.get(key).show(tenant, share);
      }
    for (const [key, row] of this.rows)
      if (!seen.has(key)) {
        row.element.remove();
        this.rows.delete(key);
      }
    setText(this.empty, text("noTenants"));
    this.empty.hidden = seen.size > 0;
  }

  redraw() {
    if (this.snapshot) this.show(this.snapshot);
  }
}
