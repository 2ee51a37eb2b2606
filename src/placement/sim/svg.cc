// PlotSvg: see svg.h.
#include "src/placement/sim/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/visible.h"

namespace divvy::placement {
namespace {

constexpr int kWidth = 520, kHeight = 348, kLeft = 56, kTop = 52, kBottom = 48, kRight = 16;
// Colours that stay apart for colour-blind readers (Okabe and Ito).
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                    "#E69F00", "#56B4E9", "#000000", "#999999"};

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : Visible(text)) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

double RoundUp(double v, double step) { return std::ceil(v / step) * step; }

struct Panel {
  int x0;
  std::string title;
  double CurvePoint::*value;
  bool legend_below;  // else above: where the curves are not, at the right
};

void Draw(const Panel& panel, const std::vector<PlotLine>& lines, std::string* out) {
  double x_max = 1, y_max = 0;
  for (const PlotLine& line : lines) {
    for (const CurvePoint& p : line.points) {
      x_max = std::max(x_max, static_cast<double>(p.arrived_percent));
      y_max = std::max(y_max, p.*panel.value);
    }
  }
  const double y_step = y_max > 50 ? 20 : y_max > 20 ? 10 : y_max > 8 ? 4 : y_max > 2 ? 2 : 0.5;
  y_max = std::max(y_step, RoundUp(y_max, y_step));
  x_max = RoundUp(x_max, 10);
  const int width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  const auto x = [&](double v) { return panel.x0 + kLeft + v / x_max * width; };
  const auto y = [&](double v) { return kTop + height - v / y_max * height; };
  for (double v = 0; v <= y_max + 1e-9; v += y_step) {
    *out += fmt::format(
        "<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#ddd\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:g}</text>\n",
        x(0), y(v), x(x_max), x(0) - 6, y(v) + 4, v);
  }
  for (double v = 0; v <= x_max + 1e-9; v += x_max > 60 ? 20 : 10) {
    *out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:g}</text>\n",
                        x(v), y(0) + 18, v);
  }
  *out += fmt::format(
      "<text x=\"{:.1f}\" y=\"{}\" font-weight=\"bold\">{}</text>"
      "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">arrived, % of capacity</text>\n",
      x(0), kTop - 12, panel.title, x(x_max / 2), y(0) + 38);
  constexpr int kLegendLine = 16, kLegendWidth = 120;
  const double legend_x = x(x_max) - kLegendWidth;
  const double legend_y =
      panel.legend_below ? y(0) - 8 - kLegendLine * static_cast<double>(lines.size()) : kTop + 6;
  for (size_t i = 0; i < lines.size(); ++i) {
    const double at = legend_y + kLegendLine * (static_cast<double>(i) + 0.5);
    const char* colour = kColours[i % std::size(kColours)];
    std::string points;
    for (const CurvePoint& p : lines[i].points) {
      points += fmt::format("{:.1f},{:.1f} ", x(p.arrived_percent), y(p.*panel.value));
    }
    *out += fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>"
        "<path d=\"M{:.1f} {:.1f}h18\" stroke=\"{}\" stroke-width=\"3\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        points, colour, legend_x, at, colour, legend_x + 24, at + 4, Escape(lines[i].name));
  }
}

}  // namespace

std::string PlotSvg(const std::string& title, const std::vector<PlotLine>& lines) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#fff\"/>\n<text x=\"{2}\" y=\"18\" font-size=\"13\">{3}</text>\n",
      2 * kWidth, kHeight, kLeft, Escape(title));
  Draw({0, "allocated, % of capacity", &CurvePoint::allocated_percent, true}, lines, &out);
  Draw({kWidth, "fragments, % of capacity", &CurvePoint::fragmentation_percent, false}, lines,
       &out);
  out += "</svg>\n";
  return out;
}

}  // namespace divvy::placement
