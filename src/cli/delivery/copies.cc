// Where copies of the driver's libraries lie on this machine.
#include <glob.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "src/base/delivery.h"
#include "src/cli/delivery/delivery.h"

namespace divvy::cli {
namespace {

void AddSplit(std::vector<std::string>& dirs, const char* list) {
  std::stringstream stream(list == nullptr ? "" : list);
  for (std::string dir; std::getline(stream, dir, ':');)
    if (!dir.empty()) dirs.push_back(dir);
}

// Folders in which the loader's cache has `soname`, as `ldconfig -p` prints them.
void AddCached(std::vector<std::string>& dirs, const std::string& soname) {
  FILE* p = ::popen("/sbin/ldconfig -p 2>/dev/null", "re");
  if (p == nullptr) return;
  char line[4096];
  while (std::fgets(line, sizeof(line), p) != nullptr) {
    const std::string text(line);
    const size_t arrow = text.find(" => ");
    if (arrow == std::string::npos || text.find("\t" + soname + " ") != 0) continue;
    const std::string path = text.substr(arrow + 4, text.find('\n') - arrow - 4);
    dirs.push_back(path.substr(0, path.rfind('/')));
  }
  ::pclose(p);
}

void AddStandard(std::vector<std::string>& dirs) {
  for (const char* pattern : delivery::kDriverDirs) {
    glob_t found{};
    if (::glob(pattern, 0, nullptr, &found) == 0)
      for (size_t i = 0; i < found.gl_pathc; ++i) dirs.push_back(found.gl_pathv[i]);
    ::globfree(&found);
  }
}

bool IsNativeLibrary(const std::string& path) {
  char header[delivery::kElfHeaderBytes];
  std::ifstream file(path, std::ios::binary);
  return file.read(header, sizeof header) && delivery::IsNativeElf({header, sizeof header});
}

}  // namespace

std::vector<std::string> FindCopies(const std::string& soname,
                                    const std::vector<std::string>& more_dirs) {
  std::vector<std::string> dirs;
  AddSplit(dirs, std::getenv("LD_LIBRARY_PATH"));
  AddCached(dirs, soname);
  AddStandard(dirs);
  dirs.insert(dirs.end(), more_dirs.begin(), more_dirs.end());
  // libcuda.so, libcuda.so.1 and libcuda.so.580.65 are mostly one file; each distinct one counts.
  const std::string stem = soname.substr(0, soname.rfind('.'));
  std::vector<std::string> found;
  for (const std::string& dir : dirs) {
    glob_t names{};
    if (::glob((dir + "/" + stem + "*").c_str(), 0, nullptr, &names) == 0) {
      for (size_t i = 0; i < names.gl_pathc; ++i) {
        std::error_code ec;
        const std::string real = std::filesystem::canonical(names.gl_pathv[i], ec).string();
        if (!ec && IsNativeLibrary(real) &&
            std::find(found.begin(), found.end(), real) == found.end())
          found.push_back(real);
      }
    }
    ::globfree(&names);
  }
  return found;
}

}  // namespace divvy::cli
