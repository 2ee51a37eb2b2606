// Mix files: JSON that people write, and that a recorder of a running tenant writes (lengths and
// gaps of operations, no data). docs/mix-file.md describes the format.
#pragma once

#include <string>
#include <string_view>

#include "src/arbiter/model/mix.h"
#include "src/base/result.h"

namespace divvy::arbiter::model {

// Reads a mix. Strict: unknown fields, missing ones and impossible numbers are kInvalid, and the
// message says where ("tenants[1].programs[0][2]: unknown step 'kernl'").
Result<Mix> ParseMix(std::string_view json);
Result<Mix> ReadMixFile(const std::string& path);

// The same as text; ParseMix reads it back equal.
std::string MixToJson(const Mix& mix);

}  // namespace divvy::arbiter::model
