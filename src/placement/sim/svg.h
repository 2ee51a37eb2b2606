// The plot of a comparison: allocation and fragmentation against arrivals, one line per policy, as
// a stand-alone SVG. Pure: returns text.
#pragma once

#include <string>
#include <vector>

#include "src/placement/sim/protocol.h"

namespace divvy::placement {

struct PlotLine {
  std::string name;
  std::vector<CurvePoint> points;
};
std::string PlotSvg(const std::string& title, const std::vector<PlotLine>& lines);

}  // namespace divvy::placement
