// CsvReader: see csv.h.
#include "src/placement/input/csv.h"

#include <algorithm>
#include <charconv>

#include "src/base/visible.h"

namespace divvy::placement {

CsvReader::CsvReader(std::string_view text, std::string file)
    : text_(text), file_(std::move(file)) {
  if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
}

Error CsvReader::At(const std::string& what) const {
  return Invalid(file_ + ":" + std::to_string(line_) + ": " + what);
}

Status CsvReader::Split() {
  line_ = next_line_;
  size_t count = 0;
  for (;;) {
    if (count == fields_.size()) fields_.emplace_back();
    std::string& field = fields_[count++];
    field.clear();
    if (at_ < text_.size() && text_[at_] == '"') {
      ++at_;
      for (;; ++at_) {
        if (at_ >= text_.size()) return At("a quote is never closed");
        if (text_[at_] == '\n') ++next_line_;
        if (text_[at_] != '"') {
          field += text_[at_];
        } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
          field += '"';
          ++at_;
        } else {
          ++at_;
          break;
        }
      }
    } else {
      const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
      field.assign(text_.substr(at_, end - at_));
      at_ = end;
    }
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      continue;
    }
    if (at_ < text_.size() && text_[at_] == '\r') {
      ++at_;
      if (at_ < text_.size() && text_[at_] != '\n') {
        return At("a carriage return without a line feed");
      }
    }
    if (at_ < text_.size() && text_[at_] != '\n') return At("text after a quoted field");
    if (at_ < text_.size()) ++at_;
    ++next_line_;
    fields_.resize(count);
    return {};
  }
}

Status CsvReader::ReadHeader(const std::vector<std::string_view>& required) {
  if (at_ >= text_.size()) {
    line_ = 1;
    return At("the file is empty");
  }
  if (Status s = Split(); !s) return s;
  header_ = fields_;
  for (const std::string_view name : required) {
    if (!Has(name)) return At("no column \"" + std::string(name) + "\" in the header");
  }
  for (size_t i = 0; i < header_.size(); ++i) {
    if (!header_[i].empty() && Column(header_[i]) != static_cast<int>(i)) {
      return At("column \"" + VisibleName(header_[i]) + "\" stands twice in the header");
    }
  }
  return {};
}

Result<bool> CsvReader::Next() {
  for (;;) {
    if (at_ >= text_.size()) return false;
    if (Status s = Split(); !s) return s.error();
    if (fields_.size() == 1 && fields_[0].empty()) continue;
    if (fields_.size() != header_.size()) {
      return At(std::to_string(fields_.size()) + " fields instead of " +
                std::to_string(header_.size()) + ": is the file cut off?");
    }
    return true;
  }
}

int CsvReader::Column(std::string_view name) const {
  const auto it = std::find(header_.begin(), header_.end(), name);
  return it == header_.end() ? -1 : static_cast<int>(it - header_.begin());
}

Result<int64_t> CsvReader::Number(int column, int64_t low, int64_t high) const {
  const std::string_view text = Text(column);
  const auto name = [&] { return header_[static_cast<size_t>(column)]; };
  int64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) {
    return At(name() + " is \"" + VisibleName(text) + "\", not a whole number");
  }
  if (value < low || value > high) {
    return At(name() + " is " + std::to_string(value) + ", not in " + std::to_string(low) + " to " +
              std::to_string(high));
  }
  return value;
}

}  // namespace divvy::placement
