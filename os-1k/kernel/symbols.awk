# symbols.awk - writes the kernel's table of functions from the output of `nm -n`.
BEGIN {
    print "#include \"kernel.h\""
    print "const struct symbol symbols[] = {"
    print "    {0, \"nowhere\"},"
    count = 1
}
$1 ~ /^[0-9a-f]+$/ && $2 ~ /^[Tt]$/ && $3 ~ /^[A-Za-z0-9_.]+$/ {
    print "    {0x" $1 ", \"" ($3 == "kernel_text_end" ? "nowhere" : $3) "\"},"
    count++
}
END {
    print "};"
    print "const size_t symbol_count = " count ";"
}
