/* What is added to each block when QEMU translates it. */
#ifndef EDGEKIT_INSTRUMENT_H
#define EDGEKIT_INSTRUMENT_H

#include "qemu_plugin.h"

/* Before any translation: which form of qemu_plugin_insn_data this version of the interface has. */
void prepare_instrument(int interface_version);

/* To be registered as QEMU's callback of translation. */
void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);

#endif
