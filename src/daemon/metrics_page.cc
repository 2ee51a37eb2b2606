#include "src/daemon/metrics_page.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace divvy::daemon {
namespace {

void AppendEscaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '\\' || c == '"') out += '\\';
      out += c;
    }
  }
}

void AppendNumber(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
    return;
  }
  char text[32];
  // Whole numbers without an exponent: bytes are read by people, too.
  const auto [end, error] =
      value == std::floor(value) && std::abs(value) < 9e15
          ? std::to_chars(text, text + sizeof text, static_cast<long long>(value))
          : std::to_chars(text, text + sizeof text, value);
  out.append(text, error == std::errc() ? end : text);
}

}  // namespace

void MetricsPage::WriteHistogram(size_t row, std::span<const double> bounds,
                                 std::span<const uint64_t> counts, double sum,
                                 std::span<const std::string_view> labels) {
  uint64_t so_far = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    so_far += counts[i];
    std::string bound = "+Inf";
    if (i < bounds.size()) {
      bound.clear();
      AppendNumber(bound, bounds[i]);
    }
    Write(row, static_cast<double>(so_far), labels, "_bucket", bound);
  }
  Write(row, sum, labels, "_sum");
  Write(row, static_cast<double>(so_far), labels, "_count");
}

void MetricsPage::Write(size_t row, double value, std::span<const std::string_view> labels,
                        std::string_view suffix, std::string_view bound) {
  const MetricRow& metric = rows_[row];
  std::string& out = samples_[row];
  out += metric.name;
  out += suffix;
  for (size_t i = 0; i < labels.size(); ++i) {
    out += i == 0 ? '{' : ',';
    out += metric.labels[i];
    out += "=\"";
    AppendEscaped(out, labels[i]);
    out += '"';
  }
  if (!bound.empty()) {
    out += labels.empty() ? '{' : ',';
    out += "le=\"";
    out += bound;
    out += '"';
  }
  out += labels.empty() && bound.empty() ? " " : "} ";
  AppendNumber(out, value);
  out += '\n';
}

std::string MetricsPage::Text(const std::vector<std::string>& only) const {
  std::string out;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const MetricRow& metric = rows_[row];
    if (samples_[row].empty()) continue;
    if (!only.empty() && std::find(only.begin(), only.end(), metric.name) == only.end()) continue;
    for (const auto& [word, text] : {std::pair("# HELP ", metric.help), {"# TYPE ", metric.type}}) {
      out += word;
      out += metric.name;
      out += ' ';
      out += text;
      out += '\n';
    }
    out += samples_[row];
  }
  return out;
}

}  // namespace divvy::daemon
