# Shared libraries that load into any process: glibc symbols <= 2.17, no libstdc++.so, no libgcc_s,
# only the exports that are named, also on musl. For what runs inside a tenant.
#
#   divvy_portable_library(NAME SRCS a.cc b.S… EXPORTS file.map
#     [SONAME libx.so.1]       # also the file's name; default lib<NAME>.so
#     [NEEDED entry…]          # NEEDED entries that must be there: absolute paths (of libraries
#                              # that need not exist here), or names such as libdl.so.2
#     [DEPS objects…]          # OBJECT libraries; they get the same compile options
#     [SIZE_LIMIT bytes])      # for the gate; default 1 MiB
#
# The function also registers the ctest `portable_NAME` (tools/portable/check_elf.py on the result),
# and tests/portable/roots.sh preloads the library on other systems (`make roots`).
# To use it for a library so far built by add_library(x SHARED …): replace add_library and its
# compile and link options by one call, keep target_include_directories and
# set_target_properties(x PROPERTIES LIBRARY_OUTPUT_DIRECTORY …) as they are. EXPORTS is an anonymous
# version script with plain names: { global: cuInit; cuMemAlloc_v2; local: *; };
# Link nothing else: header-only (INTERFACE) targets and OBJECT libraries in DEPS are all there is.
#
# What the code inside has to know:
# - A link error "undefined reference to F" means: F is newer than glibc 2.17 (or is C++ runtime:
#   operator new, function-local statics with constructors (__cxa_guard_*), thread_local with
#   destructors, exceptions). Use something older, a direct system call, or add a hidden
#   replacement to tools/portable/compat.cc (which has stat, fstat, getrandom, memfd_create,
#   gettid, pure virtual calls and operator delete).
# - dlsym, dlopen, pthread_*, sem_*, shm_*: just call them; the stubs put them into the library
#   where systems before 2.34 have them, at the version these had, and the NEEDED entry follows.
#   A library that itself *exports* dlsym refers to its own: say NEEDED libdl.so.2 and get the real
#   one by a weak `dlvsym` (a weak reference alone makes no NEEDED entry; musl has no dlvsym).
# - pthread_mutex_lock, pthread_cond_* and others that old glibc has in libc.so.6 as no-ops for
#   processes without libpthread come from there: right in both cases.
# - Weak references stay allowed and are null where a system lacks the function: test them.
# - thread_local is dynamic (loads also by dlopen). A library that is always there from the start
#   may add -ftls-model=initial-exec (cheaper; then dlopen fails on musl and may on glibc).
# - Binding is immediate (-z now): a missing symbol shows at load, never inside a hook.
# - Sanitizers stay out of these libraries, in sanitizer builds too: they load into processes that
#   have no sanitizer runtime. Unit tests of the same sources have them by compiling the sources
#   into a divvy_library of their own.
set(DIVVY_PORTABLE_TOOLS ${CMAKE_SOURCE_DIR}/tools/portable)
set(DIVVY_PORTABLE_DIR ${CMAKE_BINARY_DIR}/portable)
set(DIVVY_PORTABLE_STUBS libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1)
list(TRANSFORM DIVVY_PORTABLE_STUBS PREPEND ${DIVVY_PORTABLE_DIR}/
     OUTPUT_VARIABLE DIVVY_PORTABLE_STUB_FILES)

add_custom_command(
  OUTPUT ${DIVVY_PORTABLE_STUB_FILES}
  COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1 python3
          ${DIVVY_PORTABLE_TOOLS}/mkstubs.py --cc ${CMAKE_C_COMPILER} --out ${DIVVY_PORTABLE_DIR}
  DEPENDS ${DIVVY_PORTABLE_TOOLS}/mkstubs.py ${DIVVY_PORTABLE_TOOLS}/elf.py
  COMMENT "Stubs of glibc <= 2.17" VERBATIM)
add_custom_target(divvy_portable_stubs DEPENDS ${DIVVY_PORTABLE_STUB_FILES})

# The compile options of everything that goes into a portable library.
function(divvy_portable_compile target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions -fno-rtti -fvisibility-inlines-hidden>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>
    -fvisibility=hidden -ffunction-sections -fdata-sections
    # Fortified names (__memcpy_chk) do not exist on musl; 64-bit names (fcntl64) are newer.
    -U_FORTIFY_SOURCE -U_FILE_OFFSET_BITS)
  if(DIVVY_SANITIZED)
    target_compile_options(${target} PRIVATE -fno-sanitize=all -U_GLIBCXX_ASSERTIONS)
  endif()
endfunction()

add_library(divvy_portable_compat STATIC ${DIVVY_PORTABLE_TOOLS}/compat.cc)
divvy_portable_compile(divvy_portable_compat)

# Links a target against the stubs and nothing else; also for test programs.
function(divvy_portable_link target)
  divvy_portable_compile(${target})
  add_dependencies(${target} divvy_portable_stubs)
  string(REPLACE ";" "," stubs "${DIVVY_PORTABLE_STUB_FILES}")
  target_link_options(${target} PRIVATE -nodefaultlibs
    LINKER:--gc-sections LINKER:--hash-style=both LINKER:--exclude-libs,ALL
    LINKER:-z,defs LINKER:-z,now LINKER:-z,relro LINKER:-z,noexecstack LINKER:-z,text)
  if(DIVVY_SANITIZED)
    target_link_options(${target} PRIVATE -fno-sanitize=all)
  endif()
  target_link_libraries(${target} PRIVATE divvy_portable_compat -lgcc "-Wl,--as-needed,${stubs}")
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${DIVVY_PORTABLE_STUB_FILES})
  set_target_properties(${target} PROPERTIES SKIP_BUILD_RPATH ON)
endfunction()

function(divvy_portable_library name)
  cmake_parse_arguments(A "" "EXPORTS;SONAME;SIZE_LIMIT" "SRCS;NEEDED;DEPS" ${ARGN})
  if(A_UNPARSED_ARGUMENTS OR NOT A_SRCS OR NOT A_EXPORTS)
    message(FATAL_ERROR "divvy_portable_library(${name}): needs SRCS and EXPORTS; "
                        "not understood: '${A_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT A_SIZE_LIMIT)
    set(A_SIZE_LIMIT 1048576)
  endif()
  get_filename_component(exports ${A_EXPORTS} ABSOLUTE)

  add_library(${name} SHARED ${A_SRCS})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  foreach(dep ${A_DEPS})
    get_target_property(type ${dep} TYPE)
    if(type STREQUAL "OBJECT_LIBRARY")
      divvy_portable_compile(${dep})
    elseif(NOT type STREQUAL "INTERFACE_LIBRARY")
      message(FATAL_ERROR "divvy_portable_library(${name}): ${dep} is neither an OBJECT nor an "
                          "INTERFACE library")
    endif()
    target_link_libraries(${name} PRIVATE ${dep})
  endforeach()

  set(count 0)
  foreach(entry ${A_NEEDED})
    if(entry IN_LIST DIVVY_PORTABLE_STUBS)
      set(file ${DIVVY_PORTABLE_DIR}/${entry})
    else()
      math(EXPR count "${count} + 1")
      set(file ${DIVVY_PORTABLE_DIR}/${name}_needed_${count}.so)
      add_custom_command(OUTPUT ${file}
        COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1 python3
                ${DIVVY_PORTABLE_TOOLS}/mkstubs.py --cc ${CMAKE_C_COMPILER} --empty ${file}
                --soname ${entry}
        DEPENDS ${DIVVY_PORTABLE_TOOLS}/mkstubs.py ${DIVVY_PORTABLE_TOOLS}/elf.py
        COMMENT "Stub of ${entry}" VERBATIM)
      target_sources(${name} PRIVATE ${file})
      set_source_files_properties(${file} PROPERTIES HEADER_FILE_ONLY ON)
      set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${file})
    endif()
    target_link_libraries(${name} PRIVATE "-Wl,--no-as-needed,${file}")
  endforeach()

  divvy_portable_link(${name})
  target_link_options(${name} PRIVATE LINKER:--version-script=${exports})
  set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${exports})
  if(A_SONAME)
    set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX "" OUTPUT_NAME ${A_SONAME}
                                             NO_SONAME ON)
    target_link_options(${name} PRIVATE LINKER:-soname,${A_SONAME})
  endif()
  # tests/portable loads every library into other systems' programs, unless it needs a file there.
  if(NOT "${A_NEEDED}" MATCHES "/")
    set_property(GLOBAL APPEND PROPERTY DIVVY_PORTABLE_PRELOADS $<TARGET_FILE:${name}>)
  endif()
  add_test(NAME portable_${name}
           COMMAND python3 ${DIVVY_PORTABLE_TOOLS}/check_elf.py $<TARGET_FILE:${name}>
                   --exports ${exports} --size-limit ${A_SIZE_LIMIT} --needed ${A_NEEDED})
  set_tests_properties(portable_${name} PROPERTIES TIMEOUT 60
                       ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endfunction()
