#include "src/shim/image_size.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace divvy::shim {
namespace {

constexpr char kHead[] = ".version 6.0\n.target sm_50\n.address_size 64\n";

uint64_t OfPtx(const std::string& body) { return ImageBytes((kHead + body).c_str()); }

TEST(ImageBytes, PtxVariables) {
  EXPECT_EQ(OfPtx(".visible .global .align 16 .b8 big[268435456];"), 268435456u);
  EXPECT_EQ(OfPtx(".global .u32 x;"), 4u);
  EXPECT_EQ(OfPtx(".global.f64 x[3][5];"), 120u);
  EXPECT_EQ(OfPtx(".extern .global .v4 .f32 v[8];"), 128u);
  EXPECT_EQ(OfPtx(".global .b16 a[2], b[3];\n.global .u64 c;"), 18u);
  EXPECT_EQ(OfPtx(".global .u8 text[4] = {1, 2, 3, 4};.global .u8 after[9];"), 13u);
  EXPECT_EQ(OfPtx(".global /* .b8 not[9] */ .b8 is[7]; // .global .b8 this[100];\n"), 7u);
}

TEST(ImageBytes, PtxCodeIsNoVariable) {
  EXPECT_EQ(OfPtx(".visible .entry k(.param .u64 .ptr .global .align 8 p) {\n"
                  "  .reg .b64 %rd<4>;\n  .shared .b8 s[1024];\n"
                  "  ld.param.u64 %rd1, [p];\n  ld.global.u32 %r1, [%rd1+4096];\n"
                  "L: @%p1 st.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};\n  ret;\n}\n"),
            0u);
  EXPECT_EQ(OfPtx(".const .b8 c[64]; .func f() { ret; }"), 0u);
}

TEST(ImageBytes, PtxNonsenseEndsAndSaturates) {
  EXPECT_EQ(ImageBytes(""), 0u);
  EXPECT_EQ(ImageBytes("abc"), 0u);
  EXPECT_EQ(ImageBytes(nullptr), 0u);
  EXPECT_EQ(OfPtx(".global .b8 x["), 0u);
  EXPECT_EQ(OfPtx("/*"), 0u);
  EXPECT_EQ(OfPtx(".global .b64 x[99999999999999999999][99999999999999999999];"),
            uint64_t{1} << 48);
}

// A cubin with the given sections; names[i] has size sizes[i].
std::vector<char> Cubin(const std::vector<std::pair<std::string, uint64_t>>& sections) {
  std::string names(1, '\0');
  std::vector<Elf64_Shdr> headers(1);
  for (const auto& [name, size] : sections) {
    Elf64_Shdr s{};
    s.sh_name = static_cast<Elf64_Word>(names.size());
    s.sh_type = SHT_NOBITS;
    s.sh_size = size;
    names += name + '\0';
    headers.push_back(s);
  }
  Elf64_Shdr strings{};
  strings.sh_name = 0;
  strings.sh_type = SHT_STRTAB;
  strings.sh_offset = sizeof(Elf64_Ehdr);
  strings.sh_size = names.size();
  headers.push_back(strings);
  Elf64_Ehdr h{};
  std::memcpy(h.e_ident, ELFMAG, SELFMAG);
  h.e_ident[EI_CLASS] = ELFCLASS64;
  h.e_shentsize = sizeof(Elf64_Shdr);
  h.e_shnum = static_cast<Elf64_Half>(headers.size());
  h.e_shstrndx = static_cast<Elf64_Half>(headers.size() - 1);
  h.e_shoff = sizeof(h) + names.size();
  std::vector<char> out(h.e_shoff + headers.size() * sizeof(Elf64_Shdr));
  std::memcpy(out.data(), &h, sizeof(h));
  std::memcpy(out.data() + sizeof(h), names.data(), names.size());
  std::memcpy(out.data() + h.e_shoff, headers.data(), headers.size() * sizeof(Elf64_Shdr));
  return out;
}

TEST(ImageBytes, CubinGlobals) {
  const auto cubin = Cubin({{".text.k", 4096},
                            {".nv.global", uint64_t{1} << 30},
                            {".nv.shared.k", 49152},
                            {".nv.global.init", 100}});
  EXPECT_EQ(ImageBytes(cubin.data()), (uint64_t{1} << 30) + 100);
  EXPECT_EQ(ImageBytes(cubin.data(), cubin.size()), (uint64_t{1} << 30) + 100);
  for (size_t cut = 4; cut < cubin.size(); ++cut) ImageBytes(cubin.data(), cut);
}

TEST(ImageBytes, FatbinHasTheLargestOfItsImages) {
  const std::string ptx = std::string(kHead) + ".global .b8 x[5000];";
  const auto cubin = Cubin({{".nv.global", 7000}});
  std::vector<char> fat(16);
  const auto add = [&](uint16_t kind, const void* payload, uint64_t size) {
    char entry[64] = {};
    const uint32_t header = sizeof(entry);
    std::memcpy(entry, &kind, 2);
    std::memcpy(entry + 4, &header, 4);
    std::memcpy(entry + 8, &size, 8);
    fat.insert(fat.end(), entry, entry + sizeof(entry));
    const auto* bytes = static_cast<const char*>(payload);
    fat.insert(fat.end(), bytes, bytes + size);
  };
  add(1, ptx.data(), ptx.size());
  add(2, cubin.data(), cubin.size());
  const uint32_t magic = 0xba55ed50;
  const uint16_t version = 1, header = 16;
  const uint64_t size = fat.size() - 16;
  std::memcpy(fat.data(), &magic, 4);
  std::memcpy(fat.data() + 4, &version, 2);
  std::memcpy(fat.data() + 6, &header, 2);
  std::memcpy(fat.data() + 8, &size, 8);
  EXPECT_EQ(ImageBytes(fat.data()), 7000u);
  const struct {
    uint32_t magic, version;
    const void* data;
    void* name;
  } wrapper{0x466243b1, 1, fat.data(), nullptr};
  EXPECT_EQ(ImageBytes(&wrapper), 7000u);
  for (size_t cut = 4; cut < fat.size(); ++cut) ImageBytes(fat.data(), cut);
}

}  // namespace
}  // namespace divvy::shim
