#include "src/cli/top/terminal.h"

// Functions, not macros that would meet the names and the :: of C++.
#define NCURSES_NOMACROS 1
#include <curses.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace divvy::cli::top {
namespace {

enum Pair : short { kRedPair = 1, kYellowPair, kCyanPair };

bool colour = false;

attr_t AttributesOf(Style style) {
  const auto pair = [&](Pair p) { return colour ? static_cast<attr_t>(COLOR_PAIR(p)) : attr_t{0}; };
  switch (style) {
    case Style::kTitle:
      return A_BOLD;
    case Style::kHeader:
      return A_BOLD | pair(kCyanPair);
    case Style::kSelected:
      return A_REVERSE;
    case Style::kWarning:
      return colour ? pair(kYellowPair) : attr_t{A_BOLD};
    case Style::kError:
      return A_BOLD | pair(kRedPair);
    case Style::kPrompt:
      return A_REVERSE | A_BOLD;
    case Style::kDim:
    case Style::kPlain:
      break;
  }
  return A_NORMAL;
}

}  // namespace

Terminal::Terminal() {
  ::initscr();
  ::cbreak();
  ::noecho();
  ::nonl();
  ::keypad(stdscr, TRUE);
  ::set_escdelay(50);
  ::curs_set(0);
  const char* no_color = std::getenv("NO_COLOR");
  colour = ::has_colors() && (no_color == nullptr || *no_color == '\0');
  if (colour) {
    ::start_color();
    ::use_default_colors();
    ::init_pair(kRedPair, COLOR_RED, -1);
    ::init_pair(kYellowPair, COLOR_YELLOW, -1);
    ::init_pair(kCyanPair, COLOR_CYAN, -1);
  }
}

Terminal::~Terminal() { ::endwin(); }

unsigned Terminal::columns() const { return static_cast<unsigned>(COLS); }
unsigned Terminal::rows() const { return static_cast<unsigned>(LINES); }

void Terminal::Draw(const std::vector<Line>& lines) {
  ::erase();
  for (int y = 0; y < LINES && y < static_cast<int>(lines.size()); ++y) {
    const Line& line = lines[static_cast<size_t>(y)];
    const attr_t attributes = AttributesOf(line.style);
    ::attrset(static_cast<int>(attributes));
    ::mvaddnstr(y, 0, line.text.c_str(), COLS);
    // What is chosen or asked is a bar over the whole width.
    if ((attributes & A_REVERSE) != 0)
      for (int x = static_cast<int>(line.text.size()); x < COLS; ++x) ::mvaddch(y, x, ' ');
  }
  ::attrset(A_NORMAL);
  ::refresh();
}

int Terminal::ReadKey(int ms) {
  ::timeout(ms);
  const int key = ::getch();
  switch (key) {
    case ERR: {
      // Nothing, or nobody: a terminal that has gone away is always ready and has nothing.
      pollfd fd{STDIN_FILENO, POLLIN, 0};
      return ::poll(&fd, 1, 0) > 0 && (fd.revents & (POLLHUP | POLLERR)) != 0 ? -1 : 0;
    }
    case KEY_RESIZE:
      return 0;
    case KEY_UP:
      return kUp;
    case KEY_DOWN:
      return kDown;
    case KEY_PPAGE:
      return kPageUp;
    case KEY_NPAGE:
      return kPageDown;
    case KEY_HOME:
      return kHome;
    case KEY_END:
      return kEnd;
    case KEY_ENTER:
    case '\r':
    case '\n':
      return kEnter;
    case KEY_BACKSPACE:
    case 127:
    case 8:
      return kBackspace;
    case 27:
      return kEscape;
    case 12:  // ^L
      ::clearok(stdscr, TRUE);
      return 0;
    default:
      return key > 0 && key < 127 ? key : 0;
  }
}

}  // namespace divvy::cli::top
