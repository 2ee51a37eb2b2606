// What was used when, by device and tenant: the past from /v1/history, then snapshot by snapshot.
// Holds no more points than the span has.
const POINTS = { "60s": 60, "1h": 240 };

export class Timeline {
  constructor() {
    this.span = "60s";
    this.clear();
  }

  clear() {
    this.times = [];
    this.series = new Map(); // "device\ntenant" -> { device, tenant, memory: [], compute: [] }
    this.interval = 1;
  }

  load(span, history) {
    this.clear();
    this.span = span;
    this.interval = history.interval_s;
    this.times = history.times;
    for (const s of history.tenants)
      this.series.set(`${s.device}\n${s.tenant}`,
        { device: s.device, tenant: s.tenant, memory: s.used_bytes, compute: s.used_percent });
  }

  add(snapshot) {
    const last = this.times.at(-1);
    if (last !== undefined && snapshot.time - last < this.interval * 0.9) return;
    this.times.push(snapshot.time);
    for (const tenant of snapshot.tenants)
      for (const share of tenant.shares) {
        const key = `${share.device}\n${tenant.name}`;
        if (!this.series.has(key))
          this.series.set(key, { device: share.device, tenant: tenant.name, memory: [], compute: [] });
        const s = this.series.get(key);
        this.pad(s);
        s.memory[this.times.length - 1] = share.used_bytes;
        s.compute[this.times.length - 1] = share.used_percent_1s;
      }
    for (const s of this.series.values()) this.pad(s, this.times.length);
    if (this.times.length > POINTS[this.span]) this.dropOldest();
  }

  pad(s, length = this.times.length - 1) {
    while (s.memory.length < length) {
      s.memory.push(null);
      s.compute.push(null);
    }
  }

  dropOldest() {
    this.times.shift();
    for (const [key, s] of this.series) {
      s.memory.shift();
      s.compute.shift();
      if (s.memory.every((value) => value === null)) this.series.delete(key);
    }
  }

  // [times, [{ tenant, values }]] of one device; kind: "memory" or "compute".
  of(device, kind) {
    const mine = [...this.series.values()].filter((s) => s.device === device);
    mine.sort((a, b) => a.tenant.localeCompare(b.tenant));
    return [this.times, mine.map((s) => ({ tenant: s.tenant, values: s[kind] }))];
  }
}
