// UUID text, and NVML without a driver. What NVML answers on a machine is tested against the
// simulated one in tests/daemon.
#include <gtest/gtest.h>

#include "src/device/nvml.h"

namespace divvy::device {
namespace {

TEST(Uuid, RoundTrip) {
  const std::string text = "GPU-01234567-89ab-cdef-0123-456789abcdef";
  const Result<Uuid> uuid = ParseUuid(text);
  ASSERT_TRUE(uuid.ok());
  EXPECT_EQ(uuid->bytes[0], 0x01);
  EXPECT_EQ(uuid->bytes[15], 0xef);
  EXPECT_EQ(ToString(*uuid), text);
}

TEST(Uuid, Refused) {
  for (const char* text : {"", "GPU-", "0", "GPU-01234567-89ab-cdef-0123-456789abcde",
                           "GPU-01234567-89ab-cdef-0123-456789abcdef0",
                           "GPU-0123456789abcdeg0123456789abcdef", "01234567-89ab"})
    EXPECT_FALSE(ParseUuid(text).ok()) << text;
}

TEST(Nvml, SaysWhatIsMissing) {
  const auto none = OpenNvml("/nonexistent/libnvidia-ml.so.1");
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(none.error().message.find("--sim"), std::string::npos);
  const auto other = OpenNvml("libc.so.6");
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message.find("not NVML"), std::string::npos);
}

}  // namespace
}  // namespace divvy::device
