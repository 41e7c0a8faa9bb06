#include "programs.hpp"

#include <stdexcept>

namespace tilesmith::test {
namespace {

int attention(Build &b, int q, int k, int v) {
    const int e = b.exp(b.matmul(q, k));
    return b.matmul(b.div(e, b.row_sum(e)), v);
}

int gated(Build &b, int x, int w1, int w3) { return b.mul(b.silu(b.matmul(x, w1)), b.matmul(x, w3)); }

} // namespace

Program program(const std::string &name, unsigned parts) {
    if (name == "rms" || name == "rms2") {
        Build b("BKN", "K", parts);
        const int x = b.input("X", "BK");
        const int norm = b.norm(x);
        if (name == "rms") return b.done(b.matmul(b.mul(norm, b.input("G", "-K")), b.input("W", "KN")));
        b.rms_norm(x, 'K');
        return b.done(b.matmul(norm, b.input("W", "KN")));
    }
    if (name == "mlp") {
        Build b("BKN", "K", parts);
        const int x = b.input("X", "BK"), w = b.input("W", "KN"), v = b.input("V", "KN");
        return b.done(gated(b, x, w, v));
    }
    if (name == "lora") {
        Build b("BKNR", "KR", parts);
        const int x = b.input("X", "BK"), w = b.input("W", "KN"), a = b.input("A", "KR"), c = b.input("B", "RN");
        return b.done(b.add(b.matmul(x, w), b.matmul(b.matmul(x, a), c)));
    }
    if (name == "ntrans" || name == "ntransp") {
        Build b("BK", "K", parts);
        const int x = b.input("X", "BK"), h = b.input("H", "BK"), a = b.input("A", "-K");
        if (name == "ntrans") b.rms_norm(h, 'K');
        return b.done(b.norm(b.add(x, b.mul(a, b.add(b.norm(h), x)))));
    }
    if (name == "attn" || name == "qkn") {
        Build b("BDSE", "S", parts);
        const int q = b.input("Q", "BD"), k = b.input("K", "DS"), v = b.input("V", "SE");
        if (name == "qkn") b.rms_norm(q, 'D');
        return b.done(attention(b, name == "qkn" ? b.norm(q) : q, k, v));
    }
    if (name == "mlpd" || name == "mlpres") {
        const bool residual = name == "mlpres";
        Build b(residual ? "BMN" : "BMNE", "MN", parts);
        const int x = b.input("X", "BM"), w1 = b.input("W1", "MN"), w3 = b.input("W3", "MN");
        const int w2 = b.input("W2", residual ? "NM" : "NE");
        const int y = b.matmul(gated(b, b.norm(x), w1, w3), w2);
        return b.done(residual ? b.add(x, y) : y);
    }
    if (name == "blk" || name == "blkres") {
        const bool residual = name == "blkres";
        Build b(residual ? "BMDSE" : "BMDSEF", "MSE", parts);
        const int x = b.input("X", "BM"), wq = b.input("Wq", "MD"), k = b.input("K", "DS"), v = b.input("V", "SE");
        const int wo = b.input("Wo", residual ? "EM" : "EF");
        const int y = b.matmul(attention(b, b.matmul(b.norm(x), wq), k, v), wo);
        return b.done(residual ? b.add(x, y) : y);
    }
    if (name == "qkvlora") {
        Build b("BKNR", "KR", parts);
        const int x = b.input("X", "BK"), g = b.input("G", "-K"), w = b.input("W", "KN"), a = b.input("A", "KR");
        const int c = b.input("B", "RN"), n = b.mul(b.norm(x), g);
        return b.done(b.add(b.matmul(n, w), b.matmul(b.matmul(n, a), c)));
    }
    if (name == "sq2" || name == "sq2lin") {
        Build b("BMP", "MP", parts);
        const int x = b.input("X", "BM"), w = b.input("W", "MP"), wb = b.input("W", "PM");
        const int y = b.matmul(x, w);
        return b.done(b.matmul(name == "sq2" ? b.silu(y) : y, wb));
    }
    if (name == "nsattn" || name == "full") {
        const bool full = name == "full";
        Build b(full ? "BMDSEN" : "BMDSE", full ? "MSEN" : "MS", parts);
        const int x = b.input("X", "BM"), xs = b.input("X", "SM"), wq = b.input("Wq", "MD"), wk = b.input("Wk", "MD");
        const int wv = b.input("Wv", "ME");
        const int q = b.matmul(b.norm(x), wq), k = b.matmul(b.norm(xs), wk), v = b.matmul(b.norm(xs), wv);
        const int at = attention(b, q, b.transposed(k), v);
        if (!full) return b.done(at);
        const int h = b.add(x, b.matmul(at, b.input("Wo", "EM")));
        const int w1 = b.input("W1", "MN"), w3 = b.input("W3", "MN"), w2 = b.input("W2", "NM");
        return b.done(b.add(h, b.matmul(gated(b, b.norm(h), w1, w3), w2)));
    }
    if (name == "layer" || name == "qattnO") {
        const bool layer = name == "layer";
        Build b(layer ? "BMDSEN" : "BMDSE", layer ? "MSEN" : "MSE", parts);
        const int x = b.input("X", "BM"), wq = b.input("Wq", "MD"), k = b.input("K", "SD"), v = b.input("V", "SE");
        const int at = attention(b, b.matmul(b.norm(x), wq), b.transposed(k), v);
        const int h = b.add(x, b.matmul(at, b.input("Wo", "EM")));
        if (!layer) return b.done(h);
        const int w1 = b.input("W1", "MN"), w3 = b.input("W3", "MN"), w2 = b.input("W2", "NM");
        return b.done(b.add(h, b.matmul(gated(b, b.norm(h), w1, w3), w2)));
    }
    if (name == "omlpres") {
        Build b("BEMN", "EMN", parts);
        const int a = b.input("A", "BE"), wo = b.input("Wo", "EM"), x = b.input("X", "BM");
        const int h = b.add(x, b.matmul(a, wo));
        const int w1 = b.input("W1", "MN"), w3 = b.input("W3", "MN"), w2 = b.input("W2", "NM");
        return b.done(b.add(h, b.matmul(gated(b, b.norm(h), w1, w3), w2)));
    }
    throw std::invalid_argument("no program is called " + name);
}

} // namespace tilesmith::test
