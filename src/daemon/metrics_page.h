// A page of metrics in Prometheus's text format 0.0.4, filled sample by sample in any order and
// written by metric, in the order of the table.
//
// Pure. The rows are a table of generated/metrics_table.h: what is not in it cannot be exported.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/daemon/generated/metrics_table.h"

namespace divvy::daemon {

template <typename M>
struct MetricRows;
template <>
struct MetricRows<Metric> {
  static constexpr std::span<const MetricRow> kRows = kMetrics;
};
template <>
struct MetricRows<HamiMetric> {
  static constexpr std::span<const MetricRow> kRows = kHamiMetrics;
};

class MetricsPage {
 public:
  explicit MetricsPage(std::span<const MetricRow> rows) : rows_(rows), samples_(rows.size()) {}

  // One sample, its labels' values in the table's order.
  template <auto metric, typename... Labels>
  void Add(double value, const Labels&... labels) {
    constexpr auto kRow = static_cast<size_t>(metric);
    static_assert(MetricRows<decltype(metric)>::kRows[kRow].label_count == sizeof...(labels),
                  "a value for each label of the table");
    const std::array<std::string_view, sizeof...(labels)> values{std::string_view(labels)...};
    Write(kRow, value, values);
  }

  // One histogram: `counts` by the upper bounds of `bounds`, and a last one for what is above; not
  // cumulative. `sum` is of all that was observed.
  template <auto metric, typename... Labels>
  void AddHistogram(std::span<const double> bounds, std::span<const uint64_t> counts, double sum,
                    const Labels&... labels) {
    constexpr auto kRow = static_cast<size_t>(metric);
    static_assert(MetricRows<decltype(metric)>::kRows[kRow].label_count == sizeof...(labels),
                  "a value for each label of the table");
    const std::array<std::string_view, sizeof...(labels)> values{std::string_view(labels)...};
    WriteHistogram(kRow, bounds, counts, sum, values);
  }

  // Metrics without samples are left out. `only`: the names wanted; empty = all.
  std::string Text(const std::vector<std::string>& only) const;

 private:
  void Write(size_t row, double value, std::span<const std::string_view> labels,
             std::string_view suffix = "", std::string_view bound = "");
  void WriteHistogram(size_t row, std::span<const double> bounds, std::span<const uint64_t> counts,
                      double sum, std::span<const std::string_view> labels);

  std::span<const MetricRow> rows_;
  std::vector<std::string> samples_;  // by row
};

}  // namespace divvy::daemon
