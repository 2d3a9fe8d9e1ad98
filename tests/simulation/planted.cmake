# SPDX-License-Identifier: Apache-2.0
#
# chapter_planted: the product without gRPC, compiled once more with the defects of
# storage/core/planted.h in it. Its sources and dependencies are those of the libraries below, so
# that none is forgotten. Linking it together with one of them is an error at configure time (see
# CHAPTERSYNC_PLANTED in storage/core).
set(planted_libraries
  chapter_core chapter_reconcile chapter_engine chapter_replica chapter_session chapter_host
  chapter_sync)
if(TARGET chapter_hub_sessions)
  list(APPEND planted_libraries chapter_hub_sessions)
endif()

set(planted_sources)
set(planted_dependencies)
foreach(library IN LISTS planted_libraries)
  get_target_property(folder ${library} SOURCE_DIR)
  get_target_property(sources ${library} SOURCES)
  list(TRANSFORM sources PREPEND "${folder}/")
  list(APPEND planted_sources ${sources})
  get_target_property(dependencies ${library} INTERFACE_LINK_LIBRARIES)
  list(APPEND planted_dependencies ${dependencies})
endforeach()
list(FILTER planted_dependencies EXCLUDE REGEX "^\\$<")
list(REMOVE_ITEM planted_dependencies ${planted_libraries})
list(REMOVE_DUPLICATES planted_dependencies)

chapter_library(chapter_planted SRCS ${planted_sources} DEPS ${planted_dependencies})
target_compile_definitions(chapter_planted PUBLIC CHAPTERSYNC_PLANTED_DEFECTS)
set_target_properties(chapter_planted PROPERTIES
  INTERFACE_CHAPTERSYNC_PLANTED ON
  COMPATIBLE_INTERFACE_BOOL CHAPTERSYNC_PLANTED)
