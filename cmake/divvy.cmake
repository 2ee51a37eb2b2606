# Helpers that every folder uses: divvy_library, divvy_program, divvy_test, divvy_bench, divvy_fuzz.
include(GNUInstallDirs)
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -fno-strict-aliasing
                    -ffp-contract=off)
if(DIVVY_ASAN)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
if(DIVVY_TSAN)
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
endif()
if(DIVVY_FUZZ)
  # Everything, not just the entry points: the fuzzer steers by the code that it reaches.
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=address,undefined)
  add_custom_target(fuzzers)
endif()
if(DIVVY_ASAN OR DIVVY_TSAN OR DIVVY_FUZZ)
  set(DIVVY_SANITIZED ON)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()

include_directories(${CMAKE_SOURCE_DIR})

# divvy_library(NAME SRCS... [DEPS ...]): a static library of one folder.
function(divvy_library name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SRCS})
  target_link_libraries(${name} PUBLIC ${A_DEPS} Threads::Threads)
endfunction()

# divvy_program(NAME SRCS... [DEPS ...]): an executable in build/bin.
function(divvy_program name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS} Threads::Threads)
  target_link_options(${name} PRIVATE LINKER:-z,relro,-z,now)
endfunction()

# divvy_test(NAME SRCS... [DEPS ...] [LABELS ...] [TIMEOUT s] [SERIAL]): a GoogleTest binary in
# build/test, one ctest entry. Tests find build outputs by the env DIVVY_BUILD_DIR.
function(divvy_test name)
  cmake_parse_arguments(A "SERIAL" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS} GTest::gtest GTest::gmock GTest::gtest_main
                                        Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  if(DIVVY_SANITIZED)  # everything takes several times as long
    math(EXPR A_TIMEOUT "4 * ${A_TIMEOUT}")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    ENVIRONMENT "DIVVY_BUILD_DIR=${CMAKE_BINARY_DIR};DIVVY_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
  if(A_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# divvy_script_test(NAME FILE [LABELS ...] [TIMEOUT s] [SERIAL]): a python3 or bash test script.
function(divvy_script_test name file)
  cmake_parse_arguments(A "SERIAL" "TIMEOUT" "LABELS;ARGS" ${ARGN})
  if(file MATCHES "\\.py$")
    add_test(NAME ${name} COMMAND python3 ${file} ${A_ARGS})
  else()
    add_test(NAME ${name} COMMAND bash ${file} ${A_ARGS})
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 180)
  endif()
  if(DIVVY_SANITIZED)
    math(EXPR A_TIMEOUT "4 * ${A_TIMEOUT}")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    SKIP_RETURN_CODE 77
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    ENVIRONMENT "DIVVY_BUILD_DIR=${CMAKE_BINARY_DIR};DIVVY_SOURCE_DIR=${CMAKE_SOURCE_DIR};PYTHONDONTWRITEBYTECODE=1;DIVVY_SANITIZED=$<BOOL:${DIVVY_SANITIZED}>")
  if(A_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# divvy_bench(NAME SRCS... [DEPS ...]): a Google Benchmark binary in build/bench.
function(divvy_bench name)
  if(NOT DIVVY_BENCH OR DIVVY_SANITIZED)
    return()
  endif()
  find_package(benchmark REQUIRED)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS} benchmark::benchmark Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endfunction()

# divvy_fuzz(NAME SRCS... [DEPS ...] CORPUS dir): with DIVVY_FUZZ a libFuzzer binary; otherwise the
# same entry point linked to a small replayer, registered as a test over its corpus.
function(divvy_fuzz name)
  cmake_parse_arguments(A "" "CORPUS" "SRCS;DEPS" ${ARGN})
  if(DIVVY_FUZZ)
    add_executable(${name} ${A_SRCS})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers ${name})
    file(WRITE ${CMAKE_BINARY_DIR}/fuzz/${name}.corpus ${A_CORPUS})
  else()
    add_executable(${name} ${A_SRCS} ${CMAKE_SOURCE_DIR}/tests/fuzz_replay.cc)
    add_test(NAME ${name}_corpus COMMAND ${name} ${A_CORPUS})
  endif()
  target_link_libraries(${name} PRIVATE ${A_DEPS} Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()

include(${CMAKE_SOURCE_DIR}/cmake/portable.cmake)
