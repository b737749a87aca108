// The table of a level's functions.
#include "level.h"

#define BITFIT_STRING_OF(text) #text
#define BITFIT_STRING(macro) BITFIT_STRING_OF(macro)

namespace bitfit::BITFIT_LEVEL {

const RowFunctions ROWS{BITFIT_STRING(BITFIT_LEVEL),
                        add_row,
                        dot,
                        dropout_row,
                        softmax_row,
                        softmax_row_backward,
                        norm_row,
                        norm_row_backward,
                        ACTIVATIONS,
                        multiply,
                        pack_panel,
                        transpose,
                        PANEL_COLUMNS,
                        TILE_ROWS};

}  // namespace bitfit::BITFIT_LEVEL
