// One stacked chart: a band per tenant, drawn by uPlot. Series that are not known at a time count as 0
// in the stack and are told as "–" to a pointer.
import { colorOf } from "./colors.js";

const HEIGHT = 110;

function stacked(series) {
  const sums = [];
  return series.map(({ values }) => values.map((value, i) => (sums[i] = (sums[i] ?? 0) + (value ?? 0))));
}

export class Chart {
  constructor(parent, { max, format }) {
    this.parent = parent;
    this.max = max;
    this.format = format;
    this.plot = null;
    this.names = "";
    new ResizeObserver(() => this.plot?.setSize({ width: parent.clientWidth, height: HEIGHT })).observe(parent);
  }

  // `fresh`: colours or language have changed, too.
  draw(times, series, fresh = false) {
    const names = series.map((s) => s.tenant).join("\n");
    // The uppermost band first: the ones below are painted over it.
    const data = [times, ...stacked(series).reverse()];
    if (this.plot === null || names !== this.names || fresh) {
      this.plot?.destroy();
      this.plot = new window.uPlot(this.options(series.slice().reverse()), data, this.parent);
      this.names = names;
    } else {
      this.plot.setData(data);
    }
  }

  options(series) {
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--dim"), grid: { stroke: style.getPropertyValue("--line"), width: 1 },
      ticks: { show: false }, font: "11px system-ui" };
    return {
      width: Math.max(this.parent.clientWidth, 100),
      height: HEIGHT,
      cursor: { y: false, drag: { x: false, y: false } },
      legend: { show: false },
      scales: { y: { range: [0, this.max] } },
      axes: [{ ...axis, size: 26, values: [[1, "{HH}:{mm}:{ss}", ...Array(6).fill(null), 1]] },
        { ...axis, size: 62, splits: [0, this.max / 2, this.max],
          values: (_, splits) => splits.map((value) => this.format(value)) }],
      series: [{}, ...series.map(({ tenant }) => ({ label: tenant, stroke: colorOf(tenant), width: 1,
        fill: colorOf(tenant), points: { show: false } }))],
    };
  }
}
