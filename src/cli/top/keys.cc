// What the keys of `divvy top` do; view.h.
#include <algorithm>
#include <tuple>

#include "src/base/bytes.h"
#include "src/base/percent.h"
#include "src/cli/top/view.h"

namespace divvy::cli::top {
namespace {

constexpr size_t kMostInput = 64;

const ShareRow* Selected(const Model& model, const State& state) {
  for (const ShareRow& s : model.shares)
    if (s.machine == state.machine && s.tenant == state.tenant) return &s;
  return nullptr;
}

// Moves by `steps` tenants in the order that is shown; the first step chooses one.
void Move(int steps, const Model& model, State& state) {
  std::vector<std::pair<std::string, std::string>> order;
  for (const ShareRow* s : Shown(model, state)) {
    const std::pair key(s->machine, s->tenant);
    if (std::find(order.begin(), order.end(), key) == order.end()) order.push_back(key);
  }
  if (order.empty()) return;
  const auto at = std::find(order.begin(), order.end(), std::pair(state.machine, state.tenant));
  auto next = at == order.end() ? 0 : static_cast<int>(at - order.begin()) + steps;
  next = std::clamp(next, 0, static_cast<int>(order.size()) - 1);
  std::tie(state.machine, state.tenant) = order[static_cast<size_t>(next)];
}

void Ask(State& state, std::string question, nlohmann::json patch) {
  state.question = std::move(question);
  state.asked = Action{state.machine, state.tenant, std::move(patch)};
  state.mode = Mode::kConfirm;
}

void TakeMemory(State& state) {
  const Result<Bytes> bytes = ParseBytes(state.input);
  if (!bytes.ok() || bytes->n == 0) {
    state.message = bytes.ok() ? "0 is no amount of memory" : bytes.error().message;
    state.mode = Mode::kList;
    return;
  }
  Ask(state, "give '" + state.tenant + "' " + ToString(*bytes) + " on each of its GPUs?",
      {{"mem_bytes", bytes->n}});
}

void TakeCompute(State& state) {
  if (state.input == "0") {
    Ask(state, "promise '" + state.tenant + "' no compute any more?", {{"compute_percent", 0}});
    return;
  }
  const Result<Percent> percent = ParsePercent(state.input);
  if (!percent.ok()) {
    state.message = percent.error().message;
    state.mode = Mode::kList;
    return;
  }
  Ask(state, "promise '" + state.tenant + "' " + ToString(*percent) + " of each of its GPUs?",
      {{"compute_percent", percent->milli / 1000.0}});
}

void Type(int key, State& state) {
  if (key == kBackspace) {
    if (!state.input.empty()) state.input.pop_back();
  } else if (key >= 0x20 && key < 0x7f && state.input.size() < kMostInput) {
    state.input += static_cast<char>(key);
  }
}

void PressInInput(int key, State& state) {
  if (key == kEscape) {
    if (state.mode == Mode::kFilter) state.filter.clear();
    state.mode = Mode::kList;
    return;
  }
  if (key != kEnter) {
    Type(key, state);
    if (state.mode == Mode::kFilter) state.filter = state.input;
    return;
  }
  if (state.mode == Mode::kMemory) return TakeMemory(state);
  if (state.mode == Mode::kCompute) return TakeCompute(state);
  state.mode = Mode::kList;
}

void PressInList(int key, const Model& model, State& state) {
  const ShareRow* chosen = Selected(model, state);
  const auto begin_input = [&](Mode mode) {
    if (chosen == nullptr) {
      state.message = "choose a tenant first: up, down";
      return;
    }
    state.mode = mode;
    state.input.clear();
  };
  switch (key) {
    case 'q':
      state.quit = true;
      break;
    case '?':
    case 'h':
      state.mode = Mode::kHelp;
      break;
    case 's':
      state.sort =
          static_cast<Sort>((static_cast<int>(state.sort) + 1) % static_cast<int>(Sort::kCount));
      break;
    case 'r':
      state.reverse = !state.reverse;
      break;
    case 'p':
      state.processes = !state.processes;
      break;
    case '/':
      state.mode = Mode::kFilter;
      state.input = state.filter;
      break;
    case 'm':
      begin_input(Mode::kMemory);
      break;
    case 'c':
      begin_input(Mode::kCompute);
      break;
    case ' ':
      if (chosen == nullptr)
        state.message = "choose a tenant first: up, down";
      else if (chosen->paused)
        Ask(state, "resume '" + state.tenant + "'?", {{"paused", false}});
      else
        Ask(state, "pause '" + state.tenant + "'? It submits no more GPU work.",
            {{"paused", true}});
      break;
    case kEscape:
      state.filter.clear();
      break;
    case kUp:
    case 'k':
      Move(-1, model, state);
      break;
    case kDown:
    case 'j':
      Move(1, model, state);
      break;
    case kPageUp:
      Move(-10, model, state);
      break;
    case kPageDown:
      Move(10, model, state);
      break;
    case kHome:
      Move(-(1 << 20), model, state);
      break;
    case kEnd:
      Move(1 << 20, model, state);
      break;
    default:
      break;
  }
}

}  // namespace

std::optional<Action> Press(int key, const Model& model, State& state) {
  state.message.clear();
  switch (state.mode) {
    case Mode::kList:
      PressInList(key, model, state);
      break;
    case Mode::kHelp:
      if (key == 'q')
        state.quit = true;
      else
        state.mode = Mode::kList;
      break;
    case Mode::kFilter:
    case Mode::kMemory:
    case Mode::kCompute:
      PressInInput(key, state);
      break;
    case Mode::kConfirm: {
      state.mode = Mode::kList;
      std::optional<Action> asked = std::move(state.asked);
      state.asked.reset();
      if (key == 'y' || key == 'Y') return asked;
      state.message = "nothing was changed";
      break;
    }
  }
  return std::nullopt;
}

}  // namespace divvy::cli::top
