// Text from outside made fit for a message: bytes that a terminal or a reader of UTF-8 should not
// get are written as \xNN. Pure; used wherever input is quoted back to a person. Any thread.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

namespace divvy {

// Printable characters of UTF-8 as they are; control characters and bytes that are no UTF-8 as
// \xNN ('\n' as \n). What is longer than `most` bytes is cut, and "..." says so.
std::string Visible(std::string_view text, size_t most = std::numeric_limits<size_t>::max());
// A name out of a file, for an error text.
inline std::string VisibleName(std::string_view name) { return Visible(name, 60); }

}  // namespace divvy
