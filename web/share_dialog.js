// Change a share: the fields, then what will change, then the change. Nothing is sent before the
// second step was confirmed.
import { request } from "./api.js";
import { make } from "./dom.js";
import { bytes, parseBytes, percent } from "./format.js";
import { text } from "./text.js";

const CLASSES = ["latency", "standard", "batch"];

export class ShareDialog {
  constructor(dialog) {
    this.dialog = dialog;
  }

  async open(name) {
    const tenant = await request("GET", `/v1/tenants/${encodeURIComponent(name)}`).catch((error) => ({ error }));
    if (tenant.error) {
      this.show(make("p", { role: "alert" }, tenant.error.message), this.buttons(this.button("close", () => this.dialog.close())));
    } else {
      this.tenant = tenant;
      this.edit();
    }
    if (!this.dialog.open) this.dialog.showModal();
  }

  show(...children) {
    this.dialog.replaceChildren(make("h2", { id: "share-title" }, text("changeOf", this.tenant?.name ?? "")),
      ...children.filter((child) => child !== null));
  }

  button(word, call, kind = "") {
    return make("button", { type: "button", class: kind, "data-do": word, on: { click: call } }, text(word));
  }

  buttons(...all) {
    return make("p", { class: "buttons" }, ...all);
  }

  edit(values = {}) {
    const share = this.tenant.shares[0];
    const input = (id, value, attributes = {}) => make("input", { id: `share-${id}`, value: values[id] ?? value, ...attributes });
    const fields = {
      memory: input("memory", bytes(share.promised_bytes).replace(" ", ""), { autocomplete: "off" }),
      compute: input("compute", share.compute_percent || "", { type: "number", min: 0.001, max: 100, step: "any" }),
      cap: input("cap", share.compute_max_percent, { type: "number", min: 0.001, max: 100, step: "any" }),
      class: make("select", { id: "share-class" }, ...CLASSES.map((c) =>
        make("option", { value: c, selected: c === (values.class ?? this.tenant.class) }, text(c)))),
      paused: make("input", { id: "share-paused", type: "checkbox", checked: values.paused ?? this.tenant.paused }),
    };
    const initial = fields.memory.defaultValue;
    const problem = make("p", { role: "alert", class: "bad" });
    const form = make("form", { method: "dialog", on: { submit: (event) => {
      event.preventDefault();
      const given = { memory: fields.memory.value, compute: fields.compute.value, cap: fields.cap.value,
        class: fields.class.value, paused: fields.paused.checked };
      const { patch, error } = this.patchOf(given, values.initial ?? initial);
      problem.textContent = error ?? "";
      if (patch) this.confirm(patch, { ...given, initial: values.initial ?? initial });
    } } }, ...Object.entries(fields).map(([id, field]) =>
      make("label", { for: `share-${id}` }, make("span", {}, text(`share_${id}`)), field)), problem,
      this.buttons(this.button("cancel", () => this.dialog.close()), make("button", { class: "main" }, text("review"))));
    this.show(form);
    fields.memory.focus();
  }

  patchOf(given, initialMemory) {
    const share = this.tenant.shares[0];
    const patch = {};
    if (given.memory !== initialMemory) {
      patch.mem_bytes = parseBytes(given.memory);
      if (!(patch.mem_bytes > 0)) return { error: text("badSize") };
    }
    if (given.compute !== "" && Number(given.compute) !== share.compute_percent) patch.compute_percent = Number(given.compute);
    if (given.cap !== "" && Number(given.cap) !== share.compute_max_percent) patch.compute_max_percent = Number(given.cap);
    if (given.class !== this.tenant.class) patch.class = given.class;
    if (given.paused !== this.tenant.paused) patch.paused = given.paused;
    return Object.keys(patch).length ? { patch } : { error: text("nothingChanged") };
  }

  confirm(patch, given) {
    const share = this.tenant.shares[0];
    const word = (on) => text(on ? "yes" : "no");
    const lines = {
      mem_bytes: ["share_memory", bytes(share.promised_bytes), (v) => bytes(v)],
      compute_percent: ["share_compute", percent(share.compute_percent || null), percent],
      compute_max_percent: ["share_cap", percent(share.compute_max_percent), percent],
      class: ["share_class", text(this.tenant.class), text],
      paused: ["share_paused", word(this.tenant.paused), word],
    };
    const list = make("ul", { class: "changes" }, ...Object.entries(patch).map(([field, value]) => {
      const [label, old, show] = lines[field];
      return make("li", {}, `${text(label)}: ${old} → `, make("strong", {}, show(value)));
    }));
    const below = this.tenant.shares.some((s) => patch.mem_bytes < s.used_bytes);
    const problem = make("p", { role: "alert", class: "bad" });
    const go = this.button("apply", () => this.apply(patch, problem, go), "main");
    this.show(make("p", {}, text("atOnce")), list,
      below ? make("p", { class: "bad" }, text("belowUse", bytes(Math.max(...this.tenant.shares.map((s) => s.used_bytes))))) : null,
      problem, this.buttons(this.button("back", () => this.edit(given)), go));
    go.focus();
  }

  async apply(patch, problem, go) {
    go.disabled = true;
    try {
      await request("PATCH", `/v1/tenants/${encodeURIComponent(this.tenant.name)}`, patch);
      this.dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      go.disabled = false;
    }
  }
}
