#include "src/cli/top/view.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <tuple>

#include "src/base/bytes.h"

namespace divvy::cli::top {
namespace {

// "12.3G": a size in five columns.
std::string Short(uint64_t bytes) {
  const char* unit = "BKMGTP";
  auto n = static_cast<double>(bytes);
  while (n >= 1000 && unit[1] != '\0') {
    n /= 1024;
    ++unit;
  }
  char text[16];
  std::snprintf(text, sizeof text, n < 9.95 && *unit != 'B' ? "%.1f%c" : "%.0f%c", n, *unit);
  return text;
}

std::string PercentText(const std::optional<double>& percent) {
  if (!percent) return "-";
  char text[16];
  std::snprintf(text, sizeof text, "%.0f", std::clamp(*percent, 0.0, 999.0));
  return text;
}

// "30/28": over a second, over a minute.
std::string Pair(const std::optional<double>& now, const std::optional<double>& minute) {
  return PercentText(now) + "/" + PercentText(minute);
}

// "30<50" guaranteed and cap; "(25)" a part of what nobody was promised.
std::string ShareText(const ShareRow& s) {
  char text[32];
  if (s.guaranteed > 0)
    std::snprintf(text, sizeof text, "%.3g", s.guaranteed);
  else
    std::snprintf(text, sizeof text, "(%.2g)", s.part);
  std::string out = text;
  if (s.cap < 100) {
    std::snprintf(text, sizeof text, "<%.3g", s.cap);
    out += text;
  }
  return out;
}

std::string Count(uint64_t n) {
  if (n < 10'000) return std::to_string(n);
  return n < 10'000'000 ? std::to_string(n / 1000) + "k" : std::to_string(n / 1'000'000) + "M";
}

struct Column {
  const char* title;
  int width;  // negative: to the left
};

std::string Cells(const std::vector<Column>& columns, const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < columns.size(); ++i) {
    const auto width = static_cast<size_t>(std::abs(columns[i].width));
    std::string cell = cells[i];
    if (cell.size() > width) cell = cell.substr(0, width - 1) + "~";
    const std::string blanks(width - cell.size(), ' ');
    out += (i == 0 ? "" : " ") + (columns[i].width < 0 ? cell + blanks : blanks + cell);
  }
  return out;
}

std::string Titles(const std::vector<Column>& columns) {
  std::vector<std::string> titles;
  for (const Column& c : columns) titles.emplace_back(c.title);
  return Cells(columns, titles);
}

// 79 columns with one blank between two; what a wider terminal has more goes to the command.
const std::vector<Column> kShareColumns = {
    {"TENANT", -13}, {"GPU", -3}, {"MEMORY", 11}, {"GOT%", 7}, {"WANT%", 7}, {"SHARE", 7},
    {"WAIT%", 5},    {"REF", 4},  {"PR", 3},      {"CL", -2},  {"STATE", -7}};
const std::vector<Column> kDeviceColumns = {{"GPU", -3},     {"NAME", -20}, {"MEMORY", 12},
                                            {"PROMISED", 8}, {"GOT%", 4},   {"PROM%", 5},
                                            {"OUTSIDE", 11}, {"HEALTH", -9}};

std::string ClassText(const std::string& share_class) {
  return share_class == "latency" ? "lt" : share_class == "batch" ? "bt" : "st";
}

std::string Gpu(const std::string& machine, unsigned index) {
  return (machine == "real" ? "" : "s") + std::to_string(index);
}

Line LineOf(const DeviceRow& d) {
  std::string outside = "-";
  if (!d.outside.empty() || d.outside_bytes != 0)
    outside = Short(d.outside_bytes) + " (" + std::to_string(d.outside.size()) + ")";
  const bool sick = d.health != "ok";
  return {Cells(kDeviceColumns,
                {Gpu(d.machine, d.index), d.name, Short(d.used_bytes) + "/" + Short(d.total_bytes),
                 Short(d.promised_bytes), PercentText(d.used_percent),
                 PercentText(d.promised_percent), outside,
                 sick                ? "FAULT"
                 : !d.cordon.empty() ? "CORDONED"
                                     : "ok"}),
          sick                ? Style::kError
          : !d.cordon.empty() ? Style::kWarning
                              : Style::kPlain};
}

Line LineOf(const ShareRow& s, unsigned columns) {
  std::string text =
      Cells(kShareColumns,
            {s.tenant, Gpu(s.machine, s.index), Short(s.used_bytes) + "/" + Short(s.limit_bytes),
             Pair(s.got_1s, s.got_60s), Pair(s.wanted_1s, s.wanted_60s), ShareText(s),
             PercentText(s.wait_percent), Count(s.refusals), std::to_string(s.process_count),
             ClassText(s.share_class), s.state});
  if (columns > text.size() + 8) text += " " + s.command;
  const bool bad = s.over || s.state.find("finding") == 0 || s.state.find("fault") == 0;
  return {std::move(text), bad ? Style::kError : s.state != "ok" ? Style::kWarning : Style::kPlain};
}

Line LineOf(const ProcessRow& p, const std::string& gpu) {
  std::string text = "  " + std::to_string(p.pid);
  text.resize(std::max<size_t>(text.size(), 13), ' ');
  text += " " + gpu;
  text.resize(std::max<size_t>(text.size(), 17), ' ');
  const std::string used = Short(p.used_bytes);
  text += std::string(used.size() < 12 ? 12 - used.size() : 0, ' ') + used + "  " + p.command;
  if (!p.state.empty() && p.state != "live") text += " [" + p.state + "]";
  return {std::move(text), Style::kDim};
}

double Rank(const ShareRow& s, Sort sort) {
  switch (sort) {
    case Sort::kMemory:
      return static_cast<double>(s.used_bytes);
    case Sort::kCompute:
      return s.got_1s.value_or(-1);
    case Sort::kWait:
      return s.wait_percent;
    case Sort::kRefused:
      return static_cast<double>(s.refusals);
    case Sort::kName:
    case Sort::kGpu:
    case Sort::kCount:
      break;
  }
  return 0;
}

const char* const kHelp[] = {
    "up, down, j, k   choose a tenant           s  sort by the next column",
    "space            pause it, or resume it    r  turn the order round",
    "m                change its memory         /  show only what contains a text",
    "c                change its compute        p  processes on, off",
    "q                leave                     ?  this page, on or off",
    "",
    "GOT%, WANT%  part of the GPU's time, over 1 s / 60 s; - has the GPU to itself, not measured",
    "WANT%        what it got, and the time it waited for its turn or its cap",
    "SHARE        guaranteed < cap; (part of what nobody was promised)",
    "WAIT%        threads that wait at the gate, times 100     REF  memory refused, times",
    "PR processes, CL class: lt latency, st standard, bt batch;  GPU s0: a simulated one",
};

Line Bottom(const State& state) {
  switch (state.mode) {
    case Mode::kFilter:
      return {"filter: " + state.input + "_", Style::kPrompt};
    case Mode::kMemory:
      return {"new memory of " + state.tenant + " (e.g. 6GiB): " + state.input + "_",
              Style::kPrompt};
    case Mode::kCompute:
      return {
          "new compute of " + state.tenant + ", percent, 0 = none (e.g. 30): " + state.input + "_",
          Style::kPrompt};
    case Mode::kConfirm:
      return {state.question + " y/n", Style::kPrompt};
    case Mode::kList:
    case Mode::kHelp:
      break;
  }
  if (!state.message.empty()) return {state.message, Style::kWarning};
  return {"q leave  ? help  space pause  m memory  c compute  s sort  / filter  p processes",
          Style::kDim};
}

// A prompt's line is cut at its beginning: what is being typed is at its end.
void Fit(Line& line, unsigned columns) {
  if (line.text.size() <= columns) return;
  if (line.style == Style::kPrompt)
    line.text = line.text.substr(line.text.size() - columns);
  else
    line.text.resize(columns);
}

std::string Title(const Model& model, const State& state) {
  std::string out = "divvy top  " + std::to_string(model.devices.size()) + " GPU" +
                    (model.devices.size() == 1 ? "" : "s");
  std::vector<std::string> names;
  for (const ShareRow& s : model.shares) names.push_back(s.machine + "/" + s.tenant);
  std::sort(names.begin(), names.end());
  const auto n = std::unique(names.begin(), names.end()) - names.begin();
  out += ", " + std::to_string(n) + " tenant" + (n == 1 ? "" : "s");
  out += "  by " + std::string(ToString(state.sort)) + (state.reverse ? ", reversed" : "");
  if (!state.filter.empty()) out += "  filter '" + state.filter + "'";
  return state.clock.empty() ? out : out + "  " + state.clock;
}

}  // namespace

const char* ToString(Sort sort) {
  switch (sort) {
    case Sort::kName:
      return "name";
    case Sort::kGpu:
      return "GPU";
    case Sort::kMemory:
      return "memory";
    case Sort::kCompute:
      return "compute";
    case Sort::kWait:
      return "waits";
    case Sort::kRefused:
      return "refusals";
    case Sort::kCount:
      break;
  }
  return "";
}

std::vector<const ShareRow*> Shown(const Model& model, const State& state) {
  std::vector<const ShareRow*> out;
  for (const ShareRow& s : model.shares) {
    const std::string all = s.tenant + " " + s.command + " " + s.share_class + " " + s.state;
    if (all.find(state.filter) != std::string::npos) out.push_back(&s);
  }
  const auto name = [](const ShareRow* s) { return std::tie(s->machine, s->tenant, s->index); };
  const auto gpu = [](const ShareRow* s) { return std::tie(s->machine, s->index, s->tenant); };
  std::sort(out.begin(), out.end(), [&](const ShareRow* a, const ShareRow* b) {
    const double ra = Rank(*a, state.sort), rb = Rank(*b, state.sort);
    if (ra != rb) return ra > rb;
    return state.sort == Sort::kGpu ? gpu(a) < gpu(b) : name(a) < name(b);
  });
  if (state.reverse) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Line> Draw(const Model& model, const State& state, unsigned columns, unsigned rows) {
  std::vector<Line> out;
  out.push_back({Title(model, state), Style::kTitle});
  if (state.mode == Mode::kHelp) {
    for (const char* line : kHelp) out.push_back({line, Style::kPlain});
  } else {
    out.push_back({Titles(kDeviceColumns), Style::kHeader});
    // On a small terminal devices give way to tenants.
    const size_t most = rows == 0 ? model.devices.size() : std::max<size_t>(1, rows / 3);
    for (size_t d = 0; d < model.devices.size(); ++d) {
      if (d == most - 1 && model.devices.size() > most) {
        out.push_back(
            {"... and " + std::to_string(model.devices.size() - d) + " more", Style::kDim});
        break;
      }
      out.push_back(LineOf(model.devices[d]));
    }
    out.push_back({Titles(kShareColumns), Style::kHeader});
    std::vector<Line> body;
    size_t selected = 0;
    for (const ShareRow* s : Shown(model, state)) {
      body.push_back(LineOf(*s, columns));
      if (s->machine == state.machine && s->tenant == state.tenant) {
        body.back().style = Style::kSelected;
        selected = body.size() - 1;
      }
      if (!state.processes) continue;
      for (const ProcessRow& p : s->processes) body.push_back(LineOf(p, Gpu(s->machine, s->index)));
    }
    bool outside = false;
    for (const DeviceRow& d : model.devices)
      for (const ProcessRow& p : d.outside) {
        if (!outside) body.push_back({"outside of Divvy:", Style::kHeader});
        outside = true;
        body.push_back(LineOf(p, Gpu(d.machine, d.index)));
      }
    if (body.empty())
      body.push_back({state.filter.empty() ? "no tenants" : "nothing contains the filter's text",
                      Style::kDim});
    // The selected one stays in sight.
    const size_t room = rows == 0 ? body.size() : rows > out.size() + 1 ? rows - out.size() - 1 : 1;
    const size_t first = selected >= room ? selected - room + 1 : 0;
    for (size_t i = first; i < body.size() && i < first + room; ++i) out.push_back(body[i]);
  }
  if (rows != 0) {
    out.resize(rows > 1 ? std::min<size_t>(out.size(), rows - 1) : 1);
    if (rows > 1) {
      out.resize(rows - 1);
      out.push_back(Bottom(state));
    }
  }
  for (Line& line : out) Fit(line, columns);
  return out;
}

}  // namespace divvy::cli::top
