// A small CSV reader over a text in memory: header by name, quoted fields, LF or CRLF, a byte order
// mark; errors as "file:line: what". The text is untrusted. Used by the openb readers only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/result.h"

namespace divvy::placement {

class CsvReader {
 public:
  // `text` must outlive the reader. `file` is only for messages.
  CsvReader(std::string_view text, std::string file);

  // Reads the header line. Every name in `required` must be there.
  Status ReadHeader(const std::vector<std::string_view>& required);
  // The column's position, -1 if it is not there. Look it up once, before the rows.
  int Column(std::string_view name) const;
  bool Has(std::string_view name) const { return Column(name) >= 0; }

  // Moves to the next row that is not blank: false at the end. A row with another number of
  // fields than the header is an error (a truncated file shows like this).
  Result<bool> Next();
  std::string_view Text(int column) const {  // "" if there is no such column
    return column < 0 ? std::string_view() : std::string_view(fields_[static_cast<size_t>(column)]);
  }
  // A whole number in [low, high].
  Result<int64_t> Number(int column, int64_t low, int64_t high) const;
  Error At(const std::string& what) const;  // "file:line: what"
  size_t line() const { return line_; }     // on which the current row begins
  // The text ends in the middle of a line: perhaps it was cut off, in the last field unnoticed.
  bool EndsInLine() const { return !text_.empty() && text_.back() != '\n'; }

 private:
  Status Split();

  std::string_view text_;
  std::string file_;
  size_t at_ = 0;
  size_t line_ = 0;  // line the current row began on
  size_t next_line_ = 1;
  std::vector<std::string> header_;
  std::vector<std::string> fields_;  // of this row; longer rows are errors, so it stays short
};

}  // namespace divvy::placement
