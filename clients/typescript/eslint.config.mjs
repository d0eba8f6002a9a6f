import tseslint from "typescript-eslint";

export default tseslint.config(
    { ignores: ["dist", "build", "node_modules"] },
    {
        files: ["src/**/*.ts", "test/**/*.ts"],
        extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
        languageOptions: { parserOptions: { project: "tsconfig.test.json", tsconfigRootDir: import.meta.dirname } },
        rules: {
            // The stores are async by their interface, also where nothing is awaited.
            "@typescript-eslint/require-await": "off",
            // A function of an interface here never uses `this`.
            "@typescript-eslint/unbound-method": "off",
            // Functions without a result stand for results that nobody wants.
            "@typescript-eslint/no-empty-function": "off",
        },
    },
    { files: ["*.mjs", "scripts/**/*.mjs"], extends: [tseslint.configs.strict] },
);
