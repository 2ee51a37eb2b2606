// The terminal of `divvy top`: draws lines and reads keys. The only file that knows ncurses.
//
// Without colour (NO_COLOR, or a terminal that has none) emphasis is bold and reverse alone.
// One at a time; the terminal is as it was before when this ends.
#pragma once

#include <vector>

#include "src/base/result.h"
#include "src/cli/top/view.h"

namespace divvy::cli::top {

class Terminal {
 public:
  // kInvalid: stdin or stdout is none, or it cannot place its cursor (TERM=dumb); what to do is
  // said.
  static Status Check();
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  unsigned columns() const;
  unsigned rows() const;
  void Draw(const std::vector<Line>& lines);
  // The next key, as Press takes it; 0 when there is none within `ms` or the size has changed; -1
  // when the terminal is gone.
  int ReadKey(int ms);
};

}  // namespace divvy::cli::top
