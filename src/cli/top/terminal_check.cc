// Whether there is a terminal that `divvy top` can use. A file of its own: term.h makes macros of
// words like `lines` and `columns`.
#include "src/cli/top/terminal.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include <curses.h>
#include <term.h>

namespace divvy::cli::top {

Status Terminal::Check() {
  const std::string instead = "use `divvy top --once`, `divvy ps`, or the dashboard";
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0)
    return Invalid("divvy top needs a terminal; " + instead);
  const char* term = std::getenv("TERM");
  int error = 0;
  if (term == nullptr || ::setupterm(nullptr, STDOUT_FILENO, &error) != OK)
    return Invalid("divvy top does not know the terminal '" + std::string(term ? term : "") +
                   "' (TERM); set TERM=vt100 if it is like one, or " + instead);
  const char* move = ::tigetstr("cup");
  if (move == nullptr || move == reinterpret_cast<char*>(-1))
    return Invalid("the terminal '" + std::string(term) + "' (TERM) cannot place its cursor; " +
                   instead);
  return {};
}

}  // namespace divvy::cli::top
