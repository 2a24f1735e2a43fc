# Flags shared by every target, and the one way a folder becomes a library.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(fmt REQUIRED)

add_library(moraine_flags INTERFACE)
target_compile_options(moraine_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wshadow -Werror -ffp-contract=off -fno-math-errno>)
target_include_directories(moraine_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(moraine_flags INTERFACE fmt::fmt Threads::Threads)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of GCC 12 on std::string at -O2 and above (GCC bugs 105329, 105651, 105562).
  target_compile_options(moraine_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-maybe-uninitialized>)
endif()
if(MORAINE_SANITIZE)
  target_compile_options(moraine_flags INTERFACE
    -fsanitize=${MORAINE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(moraine_flags INTERFACE -fsanitize=${MORAINE_SANITIZE})
endif()
if(MORAINE_FUZZ)
  # Coverage for the libraries; the fuzz drivers alone link libFuzzer's main.
  # Warnings are g++'s to judge: clang's set differs and must not stop a fuzz build.
  target_compile_options(moraine_flags INTERFACE -fsanitize=fuzzer-no-link -Wno-error)
  target_link_options(moraine_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# moraine_layer(NAME [DEPENDS lower layers] [PRIVATE external targets])
# One static library of all .cpp files in the folder; NAME is the folder's.
function(moraine_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(moraine_${name} STATIC ${sources})
  target_link_libraries(moraine_${name} PUBLIC moraine_flags ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE})
endfunction()
