#include <cstdio>

#include "../table.hpp"
#include "programs.hpp"

int main() {
    using namespace tilesmith;
    for (const char *name : {"rms", "rms2", "mlp", "lora", "ntrans", "attn", "qkn", "mlpd", "blk", "qkvlora", "mlpres", "blkres", "sq2",
                             "sq2lin", "nsattn", "omlpres", "layer", "full"}) {
        const Table table = build_table(test::program(name), {});
        std::printf("%-8s classes=%zu rows=%zu terms=%zu %.4f s %s\n", name, table.classes(), table.rows.size(), table.terms,
                    table.seconds, table.incomplete.c_str());
    }
}
