// What `divvy top` shows: lines of text with attributes, for a terminal of so many columns and
// rows; and what a key does.
//
// Pure: no terminal here. top.cc draws the lines and sends what an Action asks for.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/cli/top/model.h"

namespace divvy::cli::top {

enum class Style : uint8_t { kPlain, kTitle, kHeader, kSelected, kWarning, kError, kDim, kPrompt };

struct Line {
  std::string text;  // ASCII, at most `columns` long
  Style style = Style::kPlain;
};

enum class Sort : uint8_t { kName, kGpu, kMemory, kCompute, kWait, kRefused, kCount };
const char* ToString(Sort sort);

enum class Mode : uint8_t { kList, kHelp, kFilter, kMemory, kCompute, kConfirm };

// A change that the person has confirmed.
struct Action {
  std::string machine, tenant;
  nlohmann::json patch;
};

struct State {
  Sort sort = Sort::kCompute;
  bool reverse = false;
  bool processes = false;
  std::string filter;
  std::string machine, tenant;  // the selected one; "" = none yet
  Mode mode = Mode::kList;
  std::string input;            // kFilter, kMemory, kCompute: as typed
  std::string question;         // kConfirm
  std::optional<Action> asked;  // kConfirm: what a y does
  std::string message;          // of the last thing done; cleared by a key
  std::string clock;            // as shown in the title
  bool quit = false;
};

// The keys that are more than a character.
enum Key : int {
  kUp = 0x1000,
  kDown,
  kPageUp,
  kPageDown,
  kHome,
  kEnd,
  kEnter,
  kEscape,
  kBackspace
};

// At most `rows` lines; 0 = as many as there are.
std::vector<Line> Draw(const Model& model, const State& state, unsigned columns, unsigned rows);

// What `key` (a character or a Key) does to the state; an Action when something is to be changed.
std::optional<Action> Press(int key, const Model& model, State& state);

// The shares to be shown, filtered and in order.
std::vector<const ShareRow*> Shown(const Model& model, const State& state);

}  // namespace divvy::cli::top
